//! Names, addresses and roles of a cluster's machines.
//!
//! Pure: the same numbers always give the same cluster, so that a test may write an address down. Knows the network
//! and what a guest must configure to be in it. Invariant: no two machines share a name or an address.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// More would need more memory than a workstation has, and a two-digit name keeps the list in order.
pub const MAX_MACHINES: usize = 64;

/// The network, with its prefix. Not one that the guests' own software takes: docker has 172.17, flannel 10.1 in the
/// guides of that time, QEMU's user network 10.0.2, libvirt 192.168.122.
const NETWORK: [u8; 3] = [10, 23, 0];

/// The bits of the network.
pub const PREFIX_LENGTH: u8 = 24;

/// The last byte of the first machine is 11: room below for what a person puts there by hand.
const FIRST_HOST: u8 = 10;

/// What a machine is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// A full member
    Member,
    /// One of those that only pass requests on to the members
    Proxy,
}

impl MemberRole {
    /// The word for it in user-data.
    #[must_use]
    pub fn role_word(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Proxy => "proxy",
        }
    }
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMember {
    /// From 1 on; by it a person names the machine
    pub number: u8,
    /// Its name, also its first host name
    pub name: String,
    /// Its address in the cluster's network
    pub address: Ipv4Addr,
    /// The Ethernet address of its card in the cluster's network
    pub mac: String,
    /// The Ethernet address of its card for ssh and the world
    pub world_mac: String,
    /// What it is
    pub role: MemberRole,
}

/// A number of machines that cannot be one cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cluster of {0} machines cannot be made; it has 1 to {MAX_MACHINES}, proxies among them")]
pub struct ClusterSizeError(pub usize);

/// The machines of a cluster: so many members, then so many proxies.
pub fn plan_cluster(members: usize, proxies: usize) -> Result<Vec<ClusterMember>, ClusterSizeError> {
    let count = members.saturating_add(proxies);
    let last = u8::try_from(count).ok().filter(|_| members > 0 && count <= MAX_MACHINES);
    let last = last.ok_or(ClusterSizeError(count))?;
    let [a, b, c] = NETWORK;
    let member = |number: u8| ClusterMember {
        number,
        name: format!("core-{number:02}"),
        address: Ipv4Addr::new(a, b, c, FIRST_HOST + number),
        // Not random, so that a trace of yesterday can be read beside one of today.
        // QEMU's range, with a byte by which a person tells the two cards of a machine in a trace.
        mac: format!("52:54:00:c1:00:{number:02x}"),
        world_mac: format!("52:54:00:c0:00:{number:02x}"),
        role: if usize::from(number) > members { MemberRole::Proxy } else { MemberRole::Member },
    };
    Ok((1..=last).map(member).collect())
}

impl ClusterMember {
    /// What the machine configures its cards by: Netplan's format
    /// (<https://netplan.readthedocs.io/en/stable/netplan-yaml/>), which `NoCloud` takes as `network-config`.
    ///
    /// Static, since a DHCP server of ours would be one more thing that a cut takes away. The cards are told by
    /// their Ethernet addresses: their names are the guest's choice.
    #[must_use]
    pub fn network_config(&self) -> String {
        let Self { address, mac, world_mac, .. } = self;
        let mut text = "version: 2\nethernets:\n".to_owned();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  world:\n    match: {{macaddress: \"{world_mac}\"}}\n    dhcp4: true\n  \
               cluster:\n    match: {{macaddress: \"{mac}\"}}\n    dhcp4: false\n    accept-ra: false\n    \
               link-local: [ipv6]\n    addresses: [{address}/{PREFIX_LENGTH}]\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn machines_have_numbers_names_and_addresses_of_their_own() {
        let machines = plan_cluster(60, 4).unwrap();

        let distinct =
            |of: fn(&ClusterMember) -> String| machines.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|one| one.name.clone()), 64);
        assert_eq!(distinct(|one| one.address.to_string()), 64);
        assert_eq!(distinct(|one| one.mac.clone()), 64);
        assert_eq!(machines[0].name, "core-01");
        assert_eq!(machines[11].address, Ipv4Addr::new(10, 23, 0, 22));
    }

    #[test]
    fn the_proxies_come_after_the_members() {
        let roles: Vec<&str> = plan_cluster(3, 2).unwrap().iter().map(|one| one.role.role_word()).collect();

        assert_eq!(roles, ["member", "member", "member", "proxy", "proxy"]);
    }

    #[test]
    fn a_cluster_has_one_to_sixty_four_machines_and_a_member() {
        for (members, proxies) in [(0, 0), (0, 3), (65, 0), (60, 5), (usize::MAX, 1)] {
            assert!(plan_cluster(members, proxies).is_err(), "{members} {proxies}");
        }
    }

    #[test]
    fn each_card_is_configured_by_its_address() {
        let config = plan_cluster(2, 0).unwrap()[1].network_config();

        assert_eq!(
            config,
            "version: 2
ethernets:
  world:
    match: {macaddress: \"52:54:00:c0:00:02\"}
    dhcp4: true
  cluster:
    match: {macaddress: \"52:54:00:c1:00:02\"}
    dhcp4: false
    accept-ra: false
    link-local: [ipv6]
    addresses: [10.23.0.12/24]
"
        );
    }
}
