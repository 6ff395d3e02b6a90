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

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{MappingEntry, Node, Value};

use super::field::{self, checked_text};
use super::interface::{DeviceKind, InterfaceRoute, InterfaceWiring, NetworkInterface, Options, VirtualKind};
use super::value;
use super::version_1::add_servers_everywhere;
use super::version_1::parameters::{Parameters, words_of};

const ROOT_KEYS: &[FieldKey] =
    &[supported_key("links"), supported_key("networks"), supported_key("services"), supported_key("version")];
const LINK_KEYS: &[FieldKey] = &[
    supported_key("id"),
    supported_key("type"),
    supported_key("ethernet_mac_address"),
    supported_key("mtu"),
    supported_key("bond_links"),
    supported_key("bond_mode"),
    supported_key("bond_miimon"),
    supported_key("bond_xmit_hash_policy"),
    supported_key("vlan_id"),
    supported_key("vlan_link"),
    supported_key("vlan_mac_address"),
    supported_key("name"),
    supported_key("vif_id"),
    supported_key("peer_id"),
    supported_key("ovs_hybrid_plug"),
];
const NETWORK_KEYS: &[FieldKey] = &[
    supported_key("link"),
    supported_key("type"),
    supported_key("ip_address"),
    supported_key("netmask"),
    supported_key("gateway"),
    supported_key("routes"),
    supported_key("dns_nameservers"),
    supported_key("dns_search"),
    supported_key("services"),
    supported_key("id"),
    supported_key("network_id"),
];
const ROUTE_KEYS: &[FieldKey] = &[
    supported_key("network"),
    supported_key("netmask"),
    supported_key("gateway"),
    supported_key("metric"),
    supported_key("services"),
];
const SERVICE_KEYS: &[FieldKey] = &[supported_key("type"), supported_key("address")];

pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("openstack", ROOT_KEYS),
        ("openstack.links[]", LINK_KEYS),
        ("openstack.networks[]", NETWORK_KEYS),
        ("openstack.networks[].routes[]", ROUTE_KEYS),
        ("openstack.services[]", SERVICE_KEYS),
    ]
}

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<NetworkInterface> {
    let Some(mut fields) = MappingFields::read_mapping(document, ROOT_KEYS, "", found) else {
        return Vec::new();
    };
    let mut links = Links::default();
    for (index, item) in fields.read_list("links", found).iter().enumerate() {
        let key = format!("links[{index}]");
        let (item, parameters) = without_bond_parameters(item);
        let Some(mut link) = MappingFields::read_mapping(&item, LINK_KEYS, key.clone(), found) else {
            continue;
        };
        links.add(&mut link, &parameters, key, found);
    }
    let Links { mut interfaces, wiring, .. } = links;
    let places: BTreeMap<String, usize> =
        interfaces.iter().enumerate().map(|(place, interface)| (interface.id.clone(), place)).collect();
    let mut seen = HashSet::new();
    for (index, item) in fields.read_list("networks", found).iter().enumerate() {
        let Some(mut network) =
            MappingFields::read_mapping(item, NETWORK_KEYS, format!("networks[{index}]"), found)
        else {
            continue;
        };
        let link = network.read_text("link", found).map(|link| link.value).unwrap_or_default();
        if let Some(place) = places.get(&link) {
            add_network(&mut interfaces[*place], &mut network, &mut seen, found);
        } else {
            let message = "this network's `link` is none of the links";
            found.push(Diagnostic::error(DiagnosticCode::BadValue, network.start_mark(), message));
        }
    }
    add_servers_everywhere(&mut interfaces, &name_servers(&mut fields, found), &[]);
    wiring.connect_interfaces(interfaces)
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
    interfaces: Vec<NetworkInterface>,
    wiring: InterfaceWiring,
    ids: HashSet<String>,
    names: HashSet<String>,
    bonds: u32,
}

impl Links {
    fn add(
        &mut self,
        link: &mut MappingFields<'_>,
        parameters: &[MappingEntry],
        key: String,
        found: &mut Diagnostics,
    ) {
        let id = link.read_text("id", found).map(|id| id.value).unwrap_or_default();
        if !self.ids.insert(id.clone()) {
            let message = "this link is described twice; this second description is not used";
            return found.push(
                Diagnostic::error(DiagnosticCode::DuplicateKey, link.start_mark(), message).with_key(key),
            );
        }
        let kind = link.read_text("type", found).map(|kind| kind.value).unwrap_or_default();
        let mac = checked_text(link, "ethernet_mac_address", "a hardware address", value::parse_mac, found);
        let mut interface =
            NetworkInterface { id, at: link.start_mark(), key, ..NetworkInterface::default() };
        interface.mtu = field::read_mtu(link, "mtu", found);
        let device = match kind.as_str() {
            "bond" => {
                // A bond's address is what the switch lets in. It need not be that of a member.
                interface.new_mac = mac;
                Some(self.bond_device(link, parameters, found))
            }
            "vlan" => {
                interface.new_mac =
                    checked_text(link, "vlan_mac_address", "a hardware address", value::parse_mac, found);
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
        link: &mut MappingFields<'_>,
        entries: &[MappingEntry],
        found: &mut Diagnostics,
    ) -> DeviceKind {
        // The document's identifiers are no names of interfaces. cloud-init counts bonds in the same way.
        let name = format!("bond{}", self.bonds);
        self.bonds += 1;
        for member in link.read_texts("bond_links", found) {
            self.wiring.masters.insert(member.value, (VirtualKind::Bond.unit_section(), name.clone()));
        }
        let mut parameters = Parameters::of_kind(VirtualKind::Bond);
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            let name = Located { value: entry.key.clone(), at: entry.key_at };
            parameters.add(&name, &words_of(&entry.value), entry.value.at, &mut self.wiring, found);
        }
        DeviceKind::Made { kind: VirtualKind::Bond, name, options: parameters.sorted_options().0 }
    }

    fn vlan_device(&mut self, link: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<DeviceKind> {
        // IEEE 802.1Q: 12 bits, of which all ones are reserved.
        let vlan = link.read_number::<u32>("vlan_id", found).map(|id| id.value).filter(|id| *id < 4095);
        let under = link.read_text("vlan_link", found).map(|under| under.value);
        let (Some(vlan), Some(under)) = (vlan, under) else {
            let message = "a VLAN needs `vlan_link` and `vlan_id`, which is below 4095";
            found.push(Diagnostic::error(DiagnosticCode::MissingKey, link.start_mark(), message));
            return None;
        };
        let name = self.free_name(&format!("vlan{vlan}"));
        self.wiring.vlans.entry(under).or_default().push(name.clone());
        Some(DeviceKind::Made { kind: VirtualKind::Vlan, name, options: vec![("Id", vlan.to_string())] })
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

fn physical_device(
    link: &MappingFields<'_>,
    mac: Option<String>,
    found: &mut Diagnostics,
) -> Option<DeviceKind> {
    if mac.is_none() {
        let message = "this link has no hardware address to find it by";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, link.start_mark(), message));
        return None;
    }
    Some(DeviceKind::There { name: None, mac, driver: None })
}

/// The types of networks: Nova's, and those of cloud-init's version 1 that it takes here too.
const STATIC_TYPES: [&str; 4] = ["ipv4", "ipv6", "static", "static6"];

fn add_network(
    interface: &mut NetworkInterface,
    network: &mut MappingFields<'_>,
    seen: &mut HashSet<(String, String)>,
    found: &mut Diagnostics,
) {
    let kind = network.read_text("type", found);
    match kind.as_ref().map(|kind| kind.value.as_str()) {
        Some("ipv4_dhcp") => interface.dhcp4 = true,
        Some("ipv6_dhcp" | "ipv6_dhcpv6-stateful") => interface.dhcp6 = true,
        // Router advertisements give the address in both; networkd asks DHCPv6 for the rest when they say so.
        Some("ipv6_slaac" | "ipv6_dhcpv6-stateless") => interface.accept_ra = Some(true),
        Some(word) => {
            let is_known = STATIC_TYPES.contains(&word);
            if !is_known {
                warn_of_type(
                    network,
                    kind.as_ref().map_or_else(|| network.start_mark(), |kind| kind.at),
                    found,
                );
            }
            if is_known || network.field_node("ip_address").is_some() {
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

fn warn_of_type(network: &MappingFields<'_>, at: document::source::SourceMark, found: &mut Diagnostics) {
    let message = "this is none of OpenStack's types of networks";
    let help = "`ipv4`, `ipv6`, `ipv4_dhcp`, `ipv6_dhcp`, `ipv6_slaac`, `ipv6_dhcpv6-stateless` or \
                `ipv6_dhcpv6-stateful`";
    found.push(
        Diagnostic::warning(DiagnosticCode::BadValue, at, message)
            .with_help(help)
            .with_key(network.child_path("type")),
    );
}

fn add_address(interface: &mut NetworkInterface, network: &mut MappingFields<'_>, found: &mut Diagnostics) {
    if network.field_node("ip_address").is_none() {
        let message = "this network has no `ip_address`, so it gives the link no address";
        found.push(
            Diagnostic::warning(DiagnosticCode::MissingKey, network.start_mark(), message)
                .with_key(network.path()),
        );
        return;
    }
    let mask = network.read_text("netmask", found).map(|mask| mask.value);
    interface.addresses.extend(field::address_or_guess(network, "ip_address", mask.as_deref(), found));
}

fn add_gateways(
    interface: &mut NetworkInterface,
    network: &mut MappingFields<'_>,
    seen: &mut HashSet<(String, String)>,
    found: &mut Diagnostics,
) {
    let mut routes = Vec::new();
    if let Some(via) = field::read_gateway(network, "gateway", found) {
        routes.push(InterfaceRoute::default_by(
            via,
            network.field_node("gateway").map_or_else(|| network.start_mark(), |node| node.at),
        ));
    }
    let path = network.child_path("routes");
    for (index, item) in network.read_list("routes", found).iter().enumerate() {
        let Some(mut fields) =
            MappingFields::read_mapping(item, ROUTE_KEYS, format!("{path}[{index}]"), found)
        else {
            continue;
        };
        interface.dns.extend(name_servers(&mut fields, found));
        routes.extend(read_route(&mut fields, found));
    }
    // Some clouds give the default route twice.
    let is_new =
        |route: &InterfaceRoute| seen.insert((interface.id.clone(), format!("{} {:?}", route.to, route.via)));
    interface.routes.extend(routes.into_iter().filter(is_new));
}

fn read_route(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<InterfaceRoute> {
    let via = field::read_gateway(fields, "gateway", found);
    let mask = fields.read_text("netmask", found).map(|mask| mask.value);
    let mut options = Options::new();
    field::set_option(fields, "metric", ("Route", "Metric"), &mut options, found);
    let check = |to: &str| value::parse_destination(to, mask.as_deref(), via);
    let to = checked_text(fields, "network", "a network", check, found)?;
    (!fields.has_broken_field())
        .then(|| InterfaceRoute { options, ..InterfaceRoute::new(to, via, fields.start_mark()) })
}

fn name_servers(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<IpAddr> {
    let path = fields.child_path("services");
    let mut servers = Vec::new();
    for (index, item) in fields.read_list("services", found).iter().enumerate() {
        let Some(mut service) =
            MappingFields::read_mapping(item, SERVICE_KEYS, format!("{path}[{index}]"), found)
        else {
            continue;
        };
        if service.read_text("type", found).is_some_and(|kind| kind.value == "dns") {
            servers.extend(field::read_address(&mut service, "address", found));
        }
    }
    servers
}
