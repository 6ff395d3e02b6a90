//! Who is a member of etcd, as the members themselves say.
//!
//! Knows etcd's list and when it counts. Refuses to change it: [`crate::joining`] does. Invariant: a
//! [`MembershipView`] was confirmed by a quorum; a member that is cut off, or of a cluster that was given up, gives
//! none.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::etcd_client::{CallError, EtcdClient, decode_number, encode_bytes};
use crate::voters::VoterList;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its number, by which etcd removes it.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where the others reach it; none if its URL names no address.
    pub address: Option<IpAddr>,
    /// Its URL for the others.
    pub peer_urls: Vec<String>,
    /// Whether it has said where its clients come, which is the first that it does.
    pub has_started: bool,
    /// Whether it does not vote yet.
    pub is_learner: bool,
}

/// The members, as a quorum of them confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipView {
    /// Which of the members answered, as a URL.
    pub endpoint: String,
    /// The cluster's number in etcd.
    pub cluster_id: u64,
    /// All members.
    pub members: Vec<EtcdMember>,
}

impl MembershipView {
    /// The member at one of these addresses.
    #[must_use]
    pub fn member_among(&self, addresses: &[IpAddr]) -> Option<&EtcdMember> {
        self.members.iter().find(|member| member.address.is_some_and(|own| addresses.contains(&own)))
    }

    /// Their addresses.
    #[must_use]
    pub fn voters(&self) -> VoterList {
        VoterList::new(self.members.iter().filter_map(|member| member.address))
    }

    /// `ETCD_INITIAL_CLUSTER`, which must be what the members know, for one that comes to them.
    #[must_use]
    pub fn initial_cluster(&self, own_name: &str, own: IpAddr) -> String {
        let name = |member: &EtcdMember| match member.address {
            // It has no name yet, and is to get this one.
            Some(address) if address == own => own_name.to_owned(),
            _ => member.name.clone(),
        };
        let words = self.members.iter().flat_map(|member| {
            let name = name(member);
            member.peer_urls.iter().map(move |url| format!("{name}={url}"))
        });
        words.collect::<Vec<_>>().join(",")
    }
}

/// Asks these members one by one, until one answers with a quorum behind it.
#[must_use]
pub fn ask_membership(client: &EtcdClient, members: &[SocketAddr]) -> Option<MembershipView> {
    members.iter().find_map(|member| confirm_membership(client, &format!("https://{member}")).ok())
}

/// The list of one member, once a quorum has confirmed that it is not alone.
///
/// The list itself is confirmed from etcd 3.5 on, and 3.4 knows no such option: so a key is read first, which no
/// member answers without a quorum.
pub fn confirm_membership(client: &EtcdClient, endpoint: &str) -> Result<MembershipView, CallError> {
    let probe = json!({ "key": encode_bytes(b"\0"), "count_only": true });
    client.call(endpoint, "kv/range", &probe)?;
    let answer = client.call(endpoint, "cluster/member/list", &json!({ "linearizable": true }))?;
    Ok(MembershipView {
        endpoint: endpoint.to_owned(),
        cluster_id: decode_number(&answer["header"]["cluster_id"]),
        members: read_members(&answer),
    })
}

/// Reads the list of members in an answer.
#[must_use]
pub fn read_members(answer: &Value) -> Vec<EtcdMember> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let members = answer["members"].as_array().map_or(&[][..], Vec::as_slice);
    let read = |member: &Value| {
        let peer_urls = texts(&member["peerURLs"]);
        EtcdMember {
            id: decode_number(&member["ID"]),
            name: member["name"].as_str().unwrap_or_default().to_owned(),
            address: peer_urls.iter().find_map(|url| url_address(url)),
            peer_urls,
            has_started: !texts(&member["clientURLs"]).is_empty(),
            is_learner: member["isLearner"].as_bool().unwrap_or_default(),
        }
    };
    members.iter().map(read).collect()
}

/// The address in `https://10.0.0.1:2380`.
#[must_use]
pub fn url_address(url: &str) -> Option<IpAddr> {
    let (_, authority) = url.split_once("://")?;
    let (host, _) = authority.trim_end_matches('/').rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_by_their_addresses_and_whether_they_ever_started() {
        let answer = json!({"members": [
            {"ID": "18249187646912138824", "name": "10-0-0-1", "peerURLs": ["https://10.0.0.1:2380"],
             "clientURLs": ["https://10.0.0.1:2379"]},
            {"ID": "2", "peerURLs": ["https://[fd00::2]:2380"], "isLearner": true},
            {"ID": "3", "name": "c", "peerURLs": ["http://etcd.example.org:2380"]},
        ]});

        let view = MembershipView { members: read_members(&answer), ..MembershipView::default() };

        assert_eq!(view.members[0].id, 18_249_187_646_912_138_824);
        assert!(view.members[0].has_started && !view.members[1].has_started);
        assert!(view.members[1].is_learner && view.members[2].address.is_none());
        let own = "fd00::2".parse().unwrap();
        assert_eq!(view.member_among(&[own]).unwrap().id, 2);
        assert_eq!(view.voters().count(), 2);
        assert_eq!(
            view.initial_cluster("fd00--2", own),
            "10-0-0-1=https://10.0.0.1:2380,fd00--2=https://[fd00::2]:2380,c=http://etcd.example.org:2380"
        );
    }
}
