//! OpenStack's `network_data.json`: links, the networks on them and services.
//!
//! Knows that every type of link that is neither a bond nor a VLAN is an interface with a hardware
//! address. Refuses to rename: an OpenStack link has no name that people know.
//! Identifiers that OpenStack keeps for itself are read over without a word. Invariant: a link
//! without any network is still wired into its bond.
//!
//! Documentation: Nova's `doc/api_schemas/network_data.json`, and Ironic's, which has services in routes.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::cloudconfig::fields::{Fields, Key, key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{MappingEntry, Node, Value};

use super::field::{self, checked};
use super::interface::{Device, Interface, Kind, Options, Route, Wiring};
use super::value;
use super::version_1::add_servers_everywhere;
use super::version_1::parameters::{Parameters, words_of};

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
    key("peer_id"),
    key("ovs_hybrid_plug"),
];
const NETWORK_KEYS: &[Key] = &[
    key("link"),
    key("type"),
    key("ip_address"),
    key("netmask"),
    key("gateway"),
    key("routes"),
    key("dns_nameservers"),
    key("dns_search"),
    key("services"),
    key("id"),
    key("network_id"),
];
const ROUTE_KEYS: &[Key] = &[key("network"), key("netmask"), key("gateway"), key("metric"), key("services")];
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
    let mut links = Links::default();
    for (index, item) in fields.list("links", found).iter().enumerate() {
        let key = format!("links[{index}]");
        let (item, parameters) = without_bond_parameters(item);
        let Some(mut link) = Fields::open(&item, LINK_KEYS, key.clone(), found) else { continue };
        links.add(&mut link, &parameters, key, found);
    }
    let Links { mut interfaces, wiring, .. } = links;
    let places: BTreeMap<String, usize> =
        interfaces.iter().enumerate().map(|(place, interface)| (interface.id.clone(), place)).collect();
    let mut seen = HashSet::new();
    for (index, item) in fields.list("networks", found).iter().enumerate() {
        let Some(mut network) = Fields::open(item, NETWORK_KEYS, format!("networks[{index}]"), found) else {
            continue;
        };
        let link = network.text("link", found).map(|link| link.value).unwrap_or_default();
        if let Some(place) = places.get(&link) {
            add_network(&mut interfaces[*place], &mut network, &mut seen, found);
        } else {
            let message = "this network's `link` is none of the links";
            found.push(Diagnostic::error(DiagnosticCode::BadValue, network.at(), message));
        }
    }
    add_servers_everywhere(&mut interfaces, &name_servers(&mut fields, found), &[]);
    wiring.connect(interfaces)
}

/// A link, and what it says of a bond beyond its members: whatever begins with `bond_` is a parameter of
/// it, as cloud-init takes it; OpenStack's own schema has three of them.
fn without_bond_parameters(item: &Node) -> (Node, Vec<MappingEntry>) {
    let Value::Mapping(entries) = &item.value else { return (item.clone(), Vec::new()) };
    let is_parameter = |entry: &&MappingEntry| entry.key.starts_with("bond_") && entry.key != "bond_links";
    let (parameters, others): (Vec<&MappingEntry>, Vec<&MappingEntry>) =
        entries.iter().partition(is_parameter);
    let others = Value::Mapping(others.into_iter().cloned().collect());
    (Node { value: others, ..item.clone() }, parameters.into_iter().cloned().collect())
}

/// The links as interfaces.
#[derive(Default)]
struct Links {
    interfaces: Vec<Interface>,
    wiring: Wiring,
    ids: HashSet<String>,
    names: HashSet<String>,
    bonds: u32,
}

impl Links {
    fn add(
        &mut self,
        link: &mut Fields<'_>,
        parameters: &[MappingEntry],
        key: String,
        found: &mut Diagnostics,
    ) {
        let id = link.text("id", found).map(|id| id.value).unwrap_or_default();
        if !self.ids.insert(id.clone()) {
            let message = "this link is described twice; this second description is not used";
            return found
                .push(Diagnostic::error(DiagnosticCode::DuplicateKey, link.at(), message).with_key(key));
        }
        let kind = link.text("type", found).map(|kind| kind.value).unwrap_or_default();
        let mac = checked(link, "ethernet_mac_address", "a hardware address", value::mac, found);
        let mut interface = Interface { id, at: link.at(), key, ..Interface::default() };
        interface.mtu = field::read_mtu(link, "mtu", found);
        let device = match kind.as_str() {
            "bond" => {
                interface.new_mac = mac;
                Some(self.bond_device(link, parameters, found))
            }
            "vlan" => {
                interface.new_mac =
                    checked(link, "vlan_mac_address", "a hardware address", value::mac, found);
                self.vlan_device(link, found)
            }
            _ => physical_device(link, mac, found),
        };
        if let Some(device) = device {
            interface.device = device;
            self.interfaces.push(interface);
        }
    }

    fn bond_device(
        &mut self,
        link: &mut Fields<'_>,
        entries: &[MappingEntry],
        found: &mut Diagnostics,
    ) -> Device {
        let name = format!("bond{}", self.bonds);
        self.bonds += 1;
        for member in link.texts("bond_links", found) {
            self.wiring.masters.insert(member.value, (Kind::Bond.section(), name.clone()));
        }
        let mut parameters = Parameters::of(Kind::Bond);
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            let name = Located { value: entry.key.clone(), at: entry.key_at };
            parameters.add(&name, &words_of(&entry.value), entry.value.at, &mut self.wiring, found);
        }
        Device::Made { kind: Kind::Bond, name, options: parameters.finish().0 }
    }

    fn vlan_device(&mut self, link: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Device> {
        let vlan = link.number::<u32>("vlan_id", found).map(|id| id.value).filter(|id| *id < 4095);
        let under = link.text("vlan_link", found).map(|under| under.value);
        let (Some(vlan), Some(under)) = (vlan, under) else {
            let message = "a VLAN needs `vlan_link` and `vlan_id`, which is below 4095";
            found.push(Diagnostic::error(DiagnosticCode::MissingKey, link.at(), message));
            return None;
        };
        let name = self.free_name(&format!("vlan{vlan}"));
        self.wiring.vlans.entry(under).or_default().push(name.clone());
        Some(Device::Made { kind: Kind::Vlan, name, options: vec![("Id", vlan.to_string())] })
    }

    /// Two links may have VLANs of the same number, and each needs a name of its own.
    fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }
}

fn physical_device(link: &Fields<'_>, mac: Option<String>, found: &mut Diagnostics) -> Option<Device> {
    if mac.is_none() {
        let message = "this link has no hardware address to find it by";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, link.at(), message));
        return None;
    }
    Some(Device::There { name: None, mac, driver: None })
}

/// The types of networks: Nova's, and those of cloud-init's version 1 that it takes here too.
const STATIC_TYPES: [&str; 4] = ["ipv4", "ipv6", "static", "static6"];

fn add_network(
    interface: &mut Interface,
    network: &mut Fields<'_>,
    seen: &mut HashSet<(String, String)>,
    found: &mut Diagnostics,
) {
    let kind = network.text("type", found);
    match kind.as_ref().map(|kind| kind.value.as_str()) {
        Some("ipv4_dhcp") => interface.dhcp4 = true,
        Some("ipv6_dhcp" | "ipv6_dhcpv6-stateful") => interface.dhcp6 = true,
        Some("ipv6_slaac" | "ipv6_dhcpv6-stateless") => interface.accept_ra = Some(true),
        Some(word) => {
            let is_known = STATIC_TYPES.contains(&word);
            if !is_known {
                warn_of_type(network, kind.as_ref().map_or_else(|| network.at(), |kind| kind.at), found);
            }
            if is_known || network.node("ip_address").is_some() {
                add_address(interface, network, found);
            }
        }
        None => add_address(interface, network, found),
    }
    add_gateways(interface, network, seen, found);
    let (dns, search) = field::read_servers(network, "dns_nameservers", "dns_search", found);
    interface.dns.extend(dns);
    interface.search.extend(search);
    interface.dns.extend(name_servers(network, found));
}

fn warn_of_type(network: &Fields<'_>, at: document::source::SourceMark, found: &mut Diagnostics) {
    let message = "this is none of OpenStack's types of networks";
    let help = "`ipv4`, `ipv6`, `ipv4_dhcp`, `ipv6_dhcp`, `ipv6_slaac`, `ipv6_dhcpv6-stateless` or \
                `ipv6_dhcpv6-stateful`";
    found.push(
        Diagnostic::warning(DiagnosticCode::BadValue, at, message)
            .with_help(help)
            .with_key(network.child("type")),
    );
}

fn add_address(interface: &mut Interface, network: &mut Fields<'_>, found: &mut Diagnostics) {
    if network.node("ip_address").is_none() {
        let message = "this network has no `ip_address`, so it gives the link no address";
        found.push(
            Diagnostic::warning(DiagnosticCode::MissingKey, network.at(), message).with_key(network.path()),
        );
        return;
    }
    let mask = network.text("netmask", found).map(|mask| mask.value);
    interface.addresses.extend(field::address_or_guess(network, "ip_address", mask.as_deref(), found));
}

fn add_gateways(
    interface: &mut Interface,
    network: &mut Fields<'_>,
    seen: &mut HashSet<(String, String)>,
    found: &mut Diagnostics,
) {
    let mut routes = Vec::new();
    if let Some(via) = field::read_gateway(network, "gateway", found) {
        routes.push(Route::default_by(
            via,
            network.node("gateway").map_or_else(|| network.at(), |node| node.at),
        ));
    }
    let path = network.child("routes");
    for (index, item) in network.list("routes", found).iter().enumerate() {
        let Some(mut fields) = Fields::open(item, ROUTE_KEYS, format!("{path}[{index}]"), found) else {
            continue;
        };
        interface.dns.extend(name_servers(&mut fields, found));
        routes.extend(read_route(&mut fields, found));
    }
    // Some clouds give the default route twice.
    let is_new = |route: &Route| seen.insert((interface.id.clone(), format!("{} {:?}", route.to, route.via)));
    interface.routes.extend(routes.into_iter().filter(is_new));
}

fn read_route(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Route> {
    let via = field::read_gateway(fields, "gateway", found);
    let mask = fields.text("netmask", found).map(|mask| mask.value);
    let mut options = Options::new();
    field::set_option(fields, "metric", ("Route", "Metric"), &mut options, found);
    let check = |to: &str| value::destination(to, mask.as_deref(), via);
    let to = checked(fields, "network", "a network", check, found)?;
    (!fields.broken()).then(|| Route { options, ..Route::new(to, via, fields.at()) })
}

fn name_servers(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<IpAddr> {
    let path = fields.child("services");
    let mut servers = Vec::new();
    for (index, item) in fields.list("services", found).iter().enumerate() {
        let Some(mut service) = Fields::open(item, SERVICE_KEYS, format!("{path}[{index}]"), found) else {
            continue;
        };
        if service.text("type", found).is_some_and(|kind| kind.value == "dns") {
            servers.extend(field::read_address(&mut service, "address", found));
        }
    }
    servers
}
