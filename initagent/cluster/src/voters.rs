//! Who votes in a cluster.
//!
//! Knows names and addresses, and the words that etcd wants. Refuses to know how they were found. Invariant:
//! no two voters share an address; the order is the same on every machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where clients of other machines come, with certificates.
pub const CLIENT_PORT: u16 = 2379;
/// Where members come.
pub const PEER_PORT: u16 = 2380;

/// The voters of a cluster, each known by its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VoterList(BTreeSet<IpAddr>);

impl VoterList {
    /// These machines.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Their addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().copied()
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The voter that has one of these addresses.
    #[must_use]
    pub fn member_among(&self, own: &[IpAddr]) -> Option<IpAddr> {
        self.addresses().find(|address| own.contains(address))
    }

    /// Where etcd's clients come.
    #[must_use]
    pub fn client_sockets(&self) -> Vec<SocketAddr> {
        self.addresses().map(|address| SocketAddr::new(address, CLIENT_PORT)).collect()
    }

    /// `ETCD_INITIAL_CLUSTER`.
    #[must_use]
    pub fn initial_cluster(&self) -> String {
        let members = self.addresses().map(|address| [member_name(address), peer_url(address)].join("="));
        members.collect::<Vec<_>>().join(",")
    }
}

/// The name of a member in etcd. From its address, so that each machine knows the names of all.
#[must_use]
pub fn member_name(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// Where a member is reached by the others.
#[must_use]
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_etcd_are_the_same_in_whatever_order_the_voters_were_found() {
        let list = |addresses: &[&str]| VoterList::new(addresses.iter().map(|text| text.parse().unwrap()));
        let (one, other) =
            (list(&["10.0.0.9", "10.0.0.10", "fd00::3"]), list(&["fd00::3", "10.0.0.10", "10.0.0.9"]));

        assert_eq!(one, other);
        assert_eq!(
            one.initial_cluster(),
            "10-0-0-9=https://10.0.0.9:2380,10-0-0-10=https://10.0.0.10:2380,fd00--3=https://[fd00::3]:2380"
        );
        assert_eq!(
            one.member_among(&["127.0.0.1".parse().unwrap(), "fd00::3".parse().unwrap()]),
            Some("fd00::3".parse().unwrap())
        );
        assert_eq!(one.member_among(&["10.0.0.1".parse().unwrap()]), None);
    }
}
