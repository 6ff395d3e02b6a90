//! The addresses of this machine that others could know.
//!
//! Knows which interfaces lead to other machines. Refuses to choose among clusters. Invariant: the order is
//! that of the kernel's interfaces, so that a machine chooses the same address at each boot.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// Interfaces that lead to containers of this machine, by how their names begin.
const INWARD: [&str; 9] = ["br-", "cilium", "cni", "docker", "flannel", "lxc", "podman", "veth", "virbr"];

/// One address and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The number of its interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
}

/// The addresses at which others may reach this machine.
#[must_use]
pub fn own_addresses() -> Vec<OwnAddress> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut addresses: Vec<OwnAddress> = interfaces
        .filter(|one| one.flags.contains(InterfaceFlags::IFF_UP) && leads_outward(&one.interface_name))
        .filter_map(|one| {
            let storage = one.address?;
            let address = storage
                .as_sockaddr_in()
                .map(|v4| IpAddr::from(v4.ip()))
                .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))?;
            let interface = if_nametoindex(one.interface_name.as_str()).ok()?;
            is_reachable(address).then_some(OwnAddress { interface, address })
        })
        .collect();
    // IPv4 before IPv6 of one interface, as `IpAddr` has it: temporary addresses of IPv6 come and go.
    addresses.sort();
    addresses
}

fn leads_outward(name: &str) -> bool {
    !INWARD.iter().any(|begin| name.starts_with(begin))
}

/// Neither loopback nor link-local: an address of IPv6 that needs an interface beside it fits no URL of etcd's.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_of_containers_lead_nowhere() {
        assert!(leads_outward("eth0") && leads_outward("enp1s0") && leads_outward("bond0"));
        assert!(!leads_outward("docker0") && !leads_outward("veth1a2b") && !leads_outward("br-1234"));
    }

    #[test]
    fn only_addresses_that_fit_a_url_count() {
        let reachable = |text: &str| is_reachable(text.parse().unwrap());

        assert!(reachable("10.0.0.1") && reachable("fd00::1") && reachable("2001:db8::1"));
        assert!(!reachable("127.0.0.1") && !reachable("169.254.1.1") && !reachable("fe80::1"));
    }
}
