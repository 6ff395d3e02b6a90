//! The addresses that this machine's interfaces have, for platforms that do not say them.
//!
//! Knows which addresses are private. Refuses loop-back, link-local and container bridges' addresses,
//! which mean nothing to others. Invariant: what a platform said is never replaced.
//!
//! Documentation: RFC 1918, RFC 6598 (100.64.0.0/10), RFC 4193 (unique local IPv6) and getifaddrs(3).
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use crate::MachineAddresses;

// Polling is enough: this runs once, for seconds, and only where a document asks for an address.
const PAUSE: Duration = Duration::from_millis(100);
/// Interfaces that container runtimes and this cluster's own network make.
// Their addresses are the same on each machine, so as `$private_ipv4` they would send peers to themselves.
const MADE: [&str; 7] = ["br-", "cni", "docker", "flannel", "podman", "veth", "virbr"];

impl MachineAddresses {
    /// These, and where they say nothing those of this machine's interfaces. Waits until an
    /// interface has an address that others can reach, but no longer than `patience`.
    #[must_use]
    pub fn or_interfaces(self, patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        loop {
            let found = own_addresses();
            // Documents of CoreOS's time ask for IPv4. An IPv6 address may come earlier, and would end the
            // wait too soon.
            if found.iter().any(IpAddr::is_ipv4) || Instant::now() >= deadline {
                return self.or_found(&found);
            }
            thread::sleep(PAUSE);
        }
    }

    /// These, and where they say nothing the first of `found` that fits; pure.
    #[must_use]
    pub fn or_found(self, found: &[IpAddr]) -> Self {
        let v4 = |private: bool| {
            let fits = |address: &Ipv4Addr| is_private_v4(*address) == private;
            found.iter().filter_map(as_v4).find(fits)
        };
        let v6 = |private: bool| {
            let fits = |address: &Ipv6Addr| address.is_unique_local() == private;
            found.iter().filter_map(as_v6).find(fits)
        };
        Self {
            public_ipv4: self.public_ipv4.or_else(|| v4(false)),
            private_ipv4: self.private_ipv4.or_else(|| v4(true)),
            public_ipv6: self.public_ipv6.or_else(|| v6(false)),
            private_ipv6: self.private_ipv6.or_else(|| v6(true)),
        }
    }
}

/// In the order of the interfaces, which is that of their numbers.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let useful = interfaces.filter(|one| {
        let made = MADE.iter().any(|prefix| one.interface_name.starts_with(prefix));
        one.flags.contains(InterfaceFlags::IFF_UP)
            && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !made
    });
    let address = |one: nix::ifaddrs::InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    useful.filter_map(address).filter(is_reachable).collect()
}

fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// RFC 1918, and the addresses of carriers that translate them.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private() || (first == 100 && (64..128).contains(&second))
}

fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(*v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn interfaces_fill_what_the_platform_leaves_open() {
        let said =
            MachineAddresses { public_ipv4: Some([203, 0, 113, 7].into()), ..MachineAddresses::default() };

        let filled =
            said.or_found(&found(&["198.51.100.1", "192.168.122.5", "10.0.0.1", "fd00::5", "2001:db8::5"]));

        assert_eq!(filled.public_ipv4, said.public_ipv4);
        assert_eq!(filled.private_ipv4, Some([192, 168, 122, 5].into()));
        assert_eq!(filled.private_ipv6, Some("fd00::5".parse().unwrap()));
        assert_eq!(filled.public_ipv6, Some("2001:db8::5".parse().unwrap()));
    }

    #[test]
    fn a_private_address_is_never_called_public() {
        let filled = MachineAddresses::default().or_found(&found(&["10.0.0.1", "100.64.0.9"]));

        assert_eq!(
            filled,
            MachineAddresses { private_ipv4: Some([10, 0, 0, 1].into()), ..MachineAddresses::default() }
        );
    }

    #[test]
    fn link_local_and_loop_back_addresses_mean_nothing() {
        let kept: Vec<IpAddr> = found(&["127.0.0.1", "169.254.3.4", "fe80::1", "::1", "10.0.0.1"])
            .into_iter()
            .filter(is_reachable)
            .collect();

        assert_eq!(kept, found(&["10.0.0.1"]));
    }
}
