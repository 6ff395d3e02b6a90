//! How etcd of the cluster is, member by member.
//!
//! Knows which calls tell it. Refuses to give advice: [`advice`] does. Invariant: a member that does not answer is
//! shown as such, and holds nothing up for longer than one call.

pub mod advice;

use std::net::{IpAddr, SocketAddr};
use std::thread;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::etcd_client::{EtcdClient, decode_number};
use crate::membership::{EtcdMember, confirm_membership, read_members};
use crate::voters::CLIENT_PORT;

/// What a member is for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// It follows the leader.
    Follower,
    /// It orders what is written.
    Leader,
    /// It does not vote yet.
    Learner,
    /// It does not answer.
    Silent,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberCondition {
    /// Its number in hexadecimal, as etcdctl has it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// What it is.
    pub role: MemberRole,
    /// Its etcd's version.
    pub version: String,
    /// The revision of its store.
    pub revision: u64,
    /// How large its store is on the disk.
    pub store_bytes: u64,
    /// How much of that is used.
    pub used_bytes: u64,
    /// `NOSPACE`, `CORRUPT`.
    pub alarms: Vec<String>,
}

/// How much of the cluster works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterHealth {
    /// Some members do not answer, or there is an alarm.
    Degraded,
    /// All members answer.
    Healthy,
    /// No majority: nothing is written.
    #[default]
    NoQuorum,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EtcdCondition {
    /// How much works.
    pub health: ClusterHealth,
    /// How many voters could be lost before nothing is written any more.
    pub voters_to_spare: usize,
    /// The members; none if not one answers.
    pub members: Vec<MemberCondition>,
    /// When the last backup on this machine was made.
    pub last_backup: Option<Timestamp>,
}

/// Looks at all members. `known` are those that this machine was told of.
#[must_use]
pub fn observe_condition(client: &EtcdClient, known: &[SocketAddr]) -> EtcdCondition {
    let endpoints: Vec<String> = known.iter().map(|member| format!("https://{member}")).collect();
    let list = |endpoint: &String| client.call(endpoint, "cluster/member/list", &json!({})).ok();
    let Some((endpoint, list)) = endpoints.iter().find_map(|one| Some((one, list(one)?))) else {
        return EtcdCondition::default();
    };
    let members = read_members(&list);
    let alarms = client.call(endpoint, "maintenance/alarm", &json!({ "action": "GET" })).unwrap_or_default();
    let statuses: Vec<Option<Value>> = thread::scope(|scope| {
        let ask = |member| scope.spawn(move || member_status(client, member, known));
        let asked: Vec<_> = members.iter().map(ask).collect();
        asked.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let conditions: Vec<MemberCondition> = members
        .iter()
        .zip(&statuses)
        .map(|(member, status)| read_condition(member, status.as_ref(), &alarms))
        .collect();
    let has_quorum = endpoints.iter().any(|endpoint| confirm_membership(client, endpoint).is_ok());
    judge_members(conditions, has_quorum)
}

/// A member alone may have no address but loopback, at which only its own machine asks.
fn member_status(client: &EtcdClient, member: &EtcdMember, known: &[SocketAddr]) -> Option<Value> {
    let own = member.address.filter(|address| !address.is_loopback());
    let socket = match own {
        Some(address) => SocketAddr::new(address, CLIENT_PORT),
        None => *known.first()?,
    };
    client.call(&format!("https://{socket}"), "maintenance/status", &json!({})).ok()
}

fn read_condition(member: &EtcdMember, status: Option<&Value>, alarms: &Value) -> MemberCondition {
    let number = |name: &str| status.map_or(0, |status| decode_number(&status[name]));
    let role = match status {
        None => MemberRole::Silent,
        Some(status) if status["isLearner"].as_bool() == Some(true) => MemberRole::Learner,
        Some(status) if decode_number(&status["leader"]) == member.id => MemberRole::Leader,
        Some(_) => MemberRole::Follower,
    };
    let raised = alarms["alarms"].as_array().into_iter().flatten();
    let own = raised.filter(|alarm| decode_number(&alarm["memberID"]) == member.id);
    MemberCondition {
        id: format!("{:x}", member.id),
        name: member.name.clone(),
        address: member.address,
        role,
        version: status.and_then(|status| status["version"].as_str()).unwrap_or_default().to_owned(),
        revision: status.map_or(0, |status| decode_number(&status["header"]["revision"])),
        store_bytes: number("dbSize"),
        used_bytes: number("dbSizeInUse"),
        alarms: own.filter_map(|alarm| alarm["alarm"].as_str().map(str::to_owned)).collect(),
    }
}

fn judge_members(members: Vec<MemberCondition>, has_quorum: bool) -> EtcdCondition {
    let voters = members.iter().filter(|member| member.role != MemberRole::Learner);
    let (count, answering) = voters.fold((0, 0), |(count, answering), member| {
        (count + 1, answering + usize::from(member.role != MemberRole::Silent))
    });
    let is_well = answering == count && members.iter().all(|member| member.alarms.is_empty());
    let health = match (has_quorum, is_well) {
        (false, _) => ClusterHealth::NoQuorum,
        (true, true) => ClusterHealth::Healthy,
        (true, false) => ClusterHealth::Degraded,
    };
    let majority = count / 2 + 1;
    let voters_to_spare = if has_quorum { usize::saturating_sub(answering, majority) } else { 0 };
    EtcdCondition { health, voters_to_spare, members, last_backup: None }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn member(last: u8, role: MemberRole) -> MemberCondition {
        MemberCondition {
            id: format!("{last:x}"),
            name: format!("10-0-0-{last}"),
            address: Some(IpAddr::from([10, 0, 0, last])),
            role,
            version: "3.5.16".to_owned(),
            revision: 7,
            store_bytes: 1 << 20,
            used_bytes: 1 << 19,
            alarms: Vec::new(),
        }
    }

    pub(crate) fn condition(roles: &[MemberRole], has_quorum: bool) -> EtcdCondition {
        judge_members((1..).zip(roles).map(|(last, role)| member(last, *role)).collect(), has_quorum)
    }

    #[test]
    fn voters_to_spare_are_those_beyond_the_majority() {
        use MemberRole::{Follower, Leader, Learner, Silent};

        assert_eq!(condition(&[Leader, Follower, Follower], true).voters_to_spare, 1);
        let one_down = condition(&[Leader, Follower, Silent], true);
        assert_eq!((one_down.voters_to_spare, one_down.health), (0, ClusterHealth::Degraded));
        assert_eq!(condition(&[Leader, Follower, Learner], true).voters_to_spare, 0);
        assert_eq!(condition(&[Follower, Silent, Silent], false).health, ClusterHealth::NoQuorum);
        assert_eq!(condition(&[Leader], true).health, ClusterHealth::Healthy);
    }

    #[test]
    fn an_alarm_is_its_members() {
        let one = EtcdMember {
            id: 7,
            name: "a".to_owned(),
            address: None,
            peer_urls: Vec::new(),
            has_started: true,
            is_learner: false,
        };
        let alarms =
            json!({"alarms": [{"memberID": "7", "alarm": "NOSPACE"}, {"memberID": "8", "alarm": "CORRUPT"}]});
        let status =
            json!({"version": "3.5.16", "dbSize": "4096", "leader": "7", "header": {"revision": "3"}});

        let read = read_condition(&one, Some(&status), &alarms);

        assert_eq!((read.role, read.alarms), (MemberRole::Leader, vec!["NOSPACE".to_owned()]));
        assert_eq!((read.store_bytes, read.revision), (4096, 3));
    }
}
