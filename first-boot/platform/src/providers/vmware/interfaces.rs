//! CoreOS's description of the network in guestinfo: `interface.N.mac`, `.ip.M.address` and so on.
//!
//! Knows that numbers may have gaps, and that an interface is named by `name` or by `mac`. Refuses to
//! guess: what cannot be used is reported by its variable. Invariant: one wrong variable costs itself
//! only, and never the interfaces behind it.
//!
//! Documentation: coreos-cloudinit's `vmware-guestinfo.md`, which Flatcar has too.

use std::net::IpAddr;

use super::GuestinfoLookup;
use crate::{
    InstanceMetadata,
    netplan::{InterfaceLink, RouteError, ethernets_payload},
};

/// Every variable costs a call of the hypervisor, so the numbers that are looked at have an end.
const MAX_INTERFACES: usize = 16;
const MAX_ADDRESSES: usize = 16;
/// What gives away that an interface is described.
const SIGNS: [&str; 5] = ["dhcp", "role", "ip.0.address", "route.0.gateway", "route.0.destination"];

/// Adds the interfaces, and the addresses that their roles say.
pub(super) fn add_interfaces(provision: &mut InstanceMetadata, lookup: GuestinfoLookup<'_>) {
    let mut reader = Reader { provision, lookup };
    let dns = reader.name_servers();
    let search: Vec<String> =
        (0..MAX_ADDRESSES).filter_map(|index| lookup(&format!("dns.domain.{index}"))).collect();
    let mut links = Vec::new();
    for index in 0..MAX_INTERFACES {
        if let Some(mut link) = reader.read_link(index) {
            link.dns.clone_from(&dns);
            link.search.clone_from(&search);
            links.push(link);
        }
    }
    // One call more, so that nobody wonders why the last of many interfaces has no address.
    if lookup(&format!("interface.{MAX_INTERFACES}.mac")).is_some() {
        provision.report_problem("interface", &format!("only the first {MAX_INTERFACES} are read"));
    }
    if provision.network_config.is_none() {
        provision.network_config = ethernets_payload(&links);
    }
}

struct Reader<'p> {
    provision: &'p mut InstanceMetadata,
    lookup: GuestinfoLookup<'p>,
}

impl Reader<'_> {
    fn name_servers(&mut self) -> Vec<IpAddr> {
        let mut servers = Vec::new();
        for index in 0..MAX_ADDRESSES {
            let key = format!("dns.server.{index}");
            match (self.lookup)(&key).map(|text| text.trim().parse()) {
                Some(Ok(server)) => servers.push(server),
                Some(Err(_)) => self.provision.report_problem(&key, &"it is not an address"),
                None => {}
            }
        }
        servers
    }

    fn read_link(&mut self, index: usize) -> Option<InterfaceLink> {
        let value = |key: &str| (self.lookup)(&format!("interface.{index}.{key}"));
        let (name, mac) = (value("name"), value("mac"));
        // The hardware address goes before the name, which another kernel may give to another card.
        let mut link = match (&mac, &name) {
            (Some(mac), name) => {
                InterfaceLink::with_mac(mac).or_else(|| InterfaceLink::with_name(name.as_deref()?))
            }
            (None, Some(name)) => InterfaceLink::with_name(name),
            (None, None) => {
                if SIGNS.iter().any(|key| value(key).is_some()) {
                    self.report_problem(
                        index,
                        "name",
                        "the interface has neither `name` nor `mac`, so nothing finds it",
                    );
                }
                return None;
            }
        };
        if mac.as_deref().is_some_and(|mac| InterfaceLink::with_mac(mac).is_none()) {
            self.report_problem(index, "mac", "it is not a hardware address");
        } else if link.is_none() {
            self.report_problem(index, "name", "it cannot be the name of an interface");
        }
        if let Some(link) = &mut link {
            self.add_dhcp(link, index);
            self.add_addresses(link, index);
            self.add_routes(link, index);
        }
        link
    }

    fn add_dhcp(&mut self, link: &mut InterfaceLink, index: usize) {
        // CoreOS documents `yes` and `no`. The other words are what YAML and environment files have for them.
        match self.read_value(index, "dhcp").map(|word| word.to_ascii_lowercase()).as_deref() {
            Some("yes" | "true" | "1") => link.dhcp4 = true,
            None | Some("no" | "false" | "0") => {}
            Some(_) => self.report_problem(index, "dhcp", "it is neither `yes` nor `no`"),
        }
    }

    fn add_addresses(&mut self, link: &mut InterfaceLink, index: usize) {
        let role = self.read_value(index, "role");
        if role.as_deref().is_some_and(|role| role != "public" && role != "private") {
            self.report_problem(index, "role", "it is neither `public` nor `private`");
        }
        for number in 0..MAX_ADDRESSES {
            let key = format!("ip.{number}.address");
            let Some(text) = self.read_value(index, &key) else { continue };
            let parts = text.split_once('/');
            if link.add_address(parts.map(|(address, _)| address), parts.map(|(_, prefix)| prefix)) {
                note_address(self.provision, parts.map_or("", |(address, _)| address), role.as_deref());
            } else {
                self.report_problem(index, &key, "it is not an address with its prefix, such as 10.0.0.2/24");
            }
        }
    }

    fn add_routes(&mut self, link: &mut InterfaceLink, index: usize) {
        for number in 0..MAX_ADDRESSES {
            let value = |key: &str| self.read_value(index, &format!("route.{number}.{key}"));
            let (gateway, destination) = (value("gateway"), value("destination"));
            if gateway.is_none() && destination.is_none() {
                continue;
            }
            if let Err(error) = link.add_route(destination.as_deref(), gateway.as_deref()) {
                let (key, cause) = match error {
                    RouteError::Gateway => ("gateway", "it is not an address, so the route is left out"),
                    RouteError::Destination => {
                        ("destination", "it is not a network such as 10.0.0.0/8, so the route is left out")
                    }
                };
                self.report_problem(index, &format!("route.{number}.{key}"), cause);
            }
        }
    }

    fn read_value(&self, index: usize, key: &str) -> Option<String> {
        (self.lookup)(&format!("interface.{index}.{key}")).map(|text| text.trim().to_owned())
    }

    fn report_problem(&mut self, index: usize, key: &str, cause: &str) {
        self.provision.report_problem(&format!("interface.{index}.{key}"), &cause);
    }
}

/// Of several addresses the last one counts, as coreos-cloudinit has it; without a role, none does.
fn note_address(provision: &mut InstanceMetadata, address: &str, role: Option<&str>) {
    let known = &mut provision.addresses;
    let (v4, v6) = match role {
        Some("public") => (&mut known.public_ipv4, &mut known.public_ipv6),
        Some("private") => (&mut known.private_ipv4, &mut known.private_ipv6),
        _ => return,
    };
    match address.parse() {
        Ok(IpAddr::V4(address)) => *v4 = Some(address),
        Ok(IpAddr::V6(address)) => *v6 = Some(address),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Platform;

    fn provision_of(text: &str) -> InstanceMetadata {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let variables: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('=')).collect();
        let mut provision = InstanceMetadata::new(Platform::Vmware);
        add_interfaces(&mut provision, &|key| {
            variables.get(format!("guestinfo.{key}").as_str()).map(|text| (*text).to_owned())
        });
        provision
    }

    fn network(provision: &InstanceMetadata) -> String {
        let config = provision.network_config.as_ref().map(crate::Payload::as_bytes).unwrap_or_default();
        String::from_utf8(config.to_vec()).unwrap()
    }

    fn problems(provision: &InstanceMetadata) -> Vec<&str> {
        provision.problems.iter().map(|problem| problem.item.as_str()).collect()
    }

    #[test]
    fn interfaces_are_found_by_name_or_by_address() {
        let provision = provision_of(include_str!("../../../tests/data/vmware/interfaces-by-name"));

        assert_eq!(
            network(&provision),
            "{\"ethernets\":{\"nic0\":{\"addresses\":[\"192.0.2.8/24\"],\"dhcp4\":false,\"dhcp6\":false,\
             \"match\":{\"name\":\"ens192\"},\"nameservers\":{\"addresses\":[\"192.0.2.53\"],\"search\":[\"one.test\"]},\
             \"routes\":[{\"on-link\":true,\"to\":\"0.0.0.0/0\",\"via\":\"192.0.2.1\"}]},\
             \"nic1\":{\"addresses\":[\"198.51.100.8/24\"],\"dhcp4\":false,\"dhcp6\":false,\
             \"match\":{\"macaddress\":\"00:50:56:00:00:02\"},\
             \"nameservers\":{\"addresses\":[\"192.0.2.53\"],\"search\":[\"one.test\"]}}},\"version\":2}"
        );
        assert_eq!(provision.addresses.private_ipv4, Some([192, 0, 2, 8].into()));
        assert_eq!(provision.addresses.public_ipv4, Some([198, 51, 100, 8].into()));
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn gaps_in_the_numbers_hide_nothing() {
        let provision = provision_of(
            "guestinfo.interface.2.name=ens*
             guestinfo.interface.2.ip.1.address=192.0.2.8/24
             guestinfo.interface.2.ip.3.address=2001:db8::8/64
             guestinfo.interface.2.route.4.gateway=192.0.2.1
             guestinfo.interface.2.route.4.destination=10.0.0.0/8
             guestinfo.dns.server.1=192.0.2.53",
        );

        let network = network(&provision);
        for part in ["ens*", "192.0.2.8/24", "2001:db8::8/64", "10.0.0.0/8", "192.0.2.53"] {
            assert!(network.contains(part), "{part}: {network}");
        }
        assert_eq!(provision.problems, []);
    }

    #[test]
    fn of_several_addresses_the_last_one_has_the_role() {
        let provision = provision_of(
            "guestinfo.interface.0.name=a
             guestinfo.interface.0.role=public
             guestinfo.interface.0.ip.0.address=10.0.0.100/24
             guestinfo.interface.0.ip.1.address=10.0.0.101/24
             guestinfo.interface.0.ip.2.address=2001:db8::1/64
             guestinfo.interface.1.mac=00:50:56:00:00:02
             guestinfo.interface.1.ip.0.address=10.0.0.102/24",
        );

        assert_eq!(provision.addresses.public_ipv4, Some([10, 0, 0, 101].into()));
        assert_eq!(provision.addresses.public_ipv6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(provision.addresses.private_ipv4, None);
    }

    #[test]
    fn a_bare_destination_is_the_default_route_only_when_it_is_all_zeros() {
        let routes = |destination: &str| {
            provision_of(&format!(
                "guestinfo.interface.0.name=a
                 guestinfo.interface.0.ip.0.address=192.0.2.8/24
                 guestinfo.interface.0.route.0.gateway=192.0.2.1
                 guestinfo.interface.0.route.0.destination={destination}"
            ))
        };

        assert!(network(&routes("0.0.0.0")).contains("\"to\":\"0.0.0.0/0\""));
        for wrong in ["10.0.0.0", "172.16.0.0", "nonsense", "10.0.0.0/99"] {
            let provision = routes(wrong);
            assert!(!network(&provision).contains("routes"), "{wrong}");
            assert_eq!(problems(&provision), ["interface.0.route.0.destination"], "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_reported_by_its_variable() {
        let provision = provision_of(
            "guestinfo.dns.server.0=x
             guestinfo.dns.server.1=192.0.2.53
             guestinfo.interface.0.dhcp=yes
             guestinfo.interface.1.mac=nonsense
             guestinfo.interface.2.name=a name
             guestinfo.interface.3.name=eth0
             guestinfo.interface.3.dhcp=perhaps
             guestinfo.interface.3.role=third
             guestinfo.interface.3.ip.0.address=192.0.2.8
             guestinfo.interface.3.ip.1.address=192.0.2.9/24
             guestinfo.interface.3.route.0.destination=10.0.0.0/8",
        );

        assert!(network(&provision).contains("192.0.2.9/24"));
        assert_eq!(
            problems(&provision),
            [
                "dns.server.0",
                "interface.0.name",
                "interface.1.mac",
                "interface.2.name",
                "interface.3.dhcp",
                "interface.3.role",
                "interface.3.ip.0.address",
                "interface.3.route.0.gateway",
            ]
        );
    }
}
