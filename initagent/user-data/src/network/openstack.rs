//! OpenStack's `network_data.json`: links, the networks on them and services.
//!
//! Knows that every type of link that is neither a bond nor a VLAN is an interface with a hardware
//! address. Refuses to rename: an OpenStack link has no name that people know.
//! Identifiers that OpenStack keeps for itself are read over without a word. Invariant: a link
//! without any network is still wired into its bond.

use std::net::IpAddr;

use crate::cloudconfig::fields::{Fields, Key, key};
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::yaml::Node;

use super::interface::{Device, Interface, Kind, Route, Wiring};
use super::value;
use super::version_2::{checked, default_route, with_unit};

const ROOT_KEYS: &[Key] = &[key("links"), key("networks"), key("services"), key("version")];
const LINK_KEYS: &[Key] = &[
    key("id"),
    key("type"),
    key("ethernet_mac_address"),
    key("mtu"),
    key("bond_links"),
    key("bond_mode"),
    key("bond_miimon"),
    key("bond_xmit_hash_policy"),
    key("vlan_id"),
    key("vlan_link"),
    key("vlan_mac_address"),
    key("name"),
    key("vif_id"),
];
const NETWORK_KEYS: &[Key] = &[
    key("link"),
    key("type"),
    key("ip_address"),
    key("netmask"),
    key("gateway"),
    key("routes"),
    key("dns_nameservers"),
    key("services"),
    key("id"),
    key("network_id"),
];
const ROUTE_KEYS: &[Key] = &[key("network"), key("netmask"), key("gateway"), key("services")];
const SERVICE_KEYS: &[Key] = &[key("type"), key("address")];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("openstack", ROOT_KEYS),
        ("openstack.links[]", LINK_KEYS),
        ("openstack.networks[]", NETWORK_KEYS),
        ("openstack.networks[].routes[]", ROUTE_KEYS),
        ("openstack.services[]", SERVICE_KEYS),
    ]
}

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<Interface> {
    let Some(mut fields) = Fields::open(document, ROOT_KEYS, "", found) else { return Vec::new() };
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut wiring = Wiring::default();
    let mut bonds = 0;
    for (index, item) in fields.list("links", found).iter().enumerate() {
        let key = format!("links[{index}]");
        let Some(mut link) = Fields::open(item, LINK_KEYS, key.clone(), found) else { continue };
        interfaces.extend(interface(&mut link, key, &mut bonds, &mut wiring, found));
    }
    for (index, item) in fields.list("networks", found).iter().enumerate() {
        let Some(mut network) = Fields::open(item, NETWORK_KEYS, format!("networks[{index}]"), found) else {
            continue;
        };
        let link = network.text("link", found).map(|link| link.value).unwrap_or_default();
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.id == link) {
            add_network(interface, &mut network, found);
        } else {
            let message = "this network's `link` is none of the links";
            found.push(Diagnostic::error(Code::BadValue, network.at(), message));
        }
    }
    let dns = services(&mut fields, found);
    for interface in interfaces.iter_mut().filter(|one| one.dns.is_empty()) {
        interface.dns.clone_from(&dns);
    }
    wiring.connect(interfaces)
}

fn interface(
    link: &mut Fields<'_>,
    key: String,
    bonds: &mut u32,
    wiring: &mut Wiring,
    found: &mut Diagnostics,
) -> Option<Interface> {
    let id = link.text("id", found).map(|id| id.value).unwrap_or_default();
    let kind = link.text("type", found).map(|kind| kind.value).unwrap_or_default();
    let mac = checked(link, "ethernet_mac_address", "a hardware address", value::mac, found);
    let mut interface = Interface { id, at: link.at(), key, ..Interface::default() };
    interface.mtu = link.number::<u32>("mtu", found).map(|mtu| mtu.value).filter(|mtu| *mtu > 0);
    interface.device = match kind.as_str() {
        "bond" => {
            let name = format!("bond{bonds}");
            *bonds += 1;
            interface.new_mac = mac;
            for member in link.texts("bond_links", found) {
                wiring.masters.insert(member.value, (Kind::Bond.section(), name.clone()));
            }
            Device::Made { kind: Kind::Bond, name, options: bond_options(link, found) }
        }
        "vlan" => {
            let vlan = link.number::<u32>("vlan_id", found).filter(|id| id.value < 4095)?.value;
            let name = format!("vlan{vlan}");
            interface.new_mac = checked(link, "vlan_mac_address", "a hardware address", value::mac, found);
            let under = link.text("vlan_link", found)?.value;
            wiring.vlans.entry(under).or_default().push(name.clone());
            Device::Made { kind: Kind::Vlan, name, options: vec![("Id", vlan.to_string())] }
        }
        _ if mac.is_some() => Device::There { name: None, mac, driver: None },
        _ => {
            let message = "this link has no hardware address to find it by";
            found.push(Diagnostic::error(Code::MissingKey, link.at(), message));
            return None;
        }
    };
    Some(interface)
}

fn bond_options(link: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<(&'static str, String)> {
    let mut options = Vec::new();
    for (name, setting, unit) in [
        ("bond_mode", "Mode", ""),
        ("bond_miimon", "MIIMonitorSec", "ms"),
        ("bond_xmit_hash_policy", "TransmitHashPolicy", ""),
    ] {
        if let Some(word) = checked(link, name, "one word", value::word, found) {
            options.push((setting, with_unit(&word, unit)));
        }
    }
    options
}

fn add_network(interface: &mut Interface, network: &mut Fields<'_>, found: &mut Diagnostics) {
    let kind = network.text("type", found).map(|kind| kind.value).unwrap_or_default();
    match kind.as_str() {
        "ipv4_dhcp" => interface.dhcp4 = true,
        "ipv6_dhcp" | "ipv6_dhcpv6-stateful" => interface.dhcp6 = true,
        "ipv6_slaac" | "ipv6_dhcpv6-stateless" => interface.accept_ra = Some(true),
        _ => {
            let mask = network.text("netmask", found).map(|mask| mask.value);
            let check = |text: &str| value::with_prefix(text, mask.as_deref());
            interface.addresses.extend(checked(network, "ip_address", "an address", check, found));
        }
    }
    if let Some(via) = checked(network, "gateway", "an address", value::ip, found) {
        interface.routes.push(default_route(via));
    }
    for (index, item) in network.list("routes", found).iter().enumerate() {
        let Some(mut route) = Fields::open(item, ROUTE_KEYS, format!("routes[{index}]"), found) else {
            continue;
        };
        let via = checked(&mut route, "gateway", "an address", value::ip, found);
        let mask = route.text("netmask", found).map(|mask| mask.value);
        let check = |to: &str| value::destination(to, mask.as_deref(), via);
        if let Some(to) = checked(&mut route, "network", "a network", check, found) {
            let new = Route { to, via, ..Route::default() };
            // Some clouds give the default route twice.
            if !interface.routes.contains(&new) {
                interface.routes.push(new);
            }
        }
    }
    let listed = network.texts("dns_nameservers", found);
    interface.dns.extend(listed.iter().filter_map(|text| value::ip(&text.value)));
    interface.dns.extend(services(network, found));
}

fn services(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<IpAddr> {
    let path = fields.child("services");
    let mut servers = Vec::new();
    for (index, item) in fields.list("services", found).iter().enumerate() {
        let Some(mut service) = Fields::open(item, SERVICE_KEYS, format!("{path}[{index}]"), found) else {
            continue;
        };
        if service.text("type", found).is_some_and(|kind| kind.value == "dns") {
            servers.extend(checked(&mut service, "address", "an address", value::ip, found));
        }
    }
    servers
}
