//! Version 1: a list of interfaces with subnets, as older clouds give it.
//!
//! Knows physical interfaces, bonds, bridges, VLANs, name servers and routes. Refuses other types by
//! name. Invariant: an item that cannot be read costs itself only.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/network-config-format-v1.html>.

pub(super) mod parameters;
mod subnet;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::cloudconfig::fields::{FieldKey, MappingFields, no_effect, supported_key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{Node, Value};

use self::parameters::{Parameters, words_of};
use self::subnet::{add_subnets, read_route};
use super::field::{self, MOST_SERVERS, checked_text};
use super::interface::{DeviceKind, InterfaceRoute, InterfaceWiring, NetworkInterface, Options, VirtualKind};
use super::value;

const ROOT_KEYS: &[FieldKey] = &[supported_key("version"), supported_key("config")];
const ITEM_KEYS: &[FieldKey] = &[
    supported_key("type"),
    supported_key("name"),
    supported_key("mac_address"),
    supported_key("mtu"),
    supported_key("subnets"),
    supported_key("accept_ra"),
    supported_key("bond_interfaces"),
    supported_key("bridge_interfaces"),
    supported_key("params"),
    supported_key("vlan_link"),
    supported_key("vlan_id"),
    supported_key("wakeonlan"),
    supported_key("address"),
    supported_key("search"),
    supported_key("interface"),
    supported_key("destination"),
    supported_key("network"),
    supported_key("netmask"),
    supported_key("prefix"),
    supported_key("gateway"),
    supported_key("metric"),
    supported_key("id"),
    no_effect("keep_configuration", "networkd keeps what it configured when it restarts"),
];
pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("v1", ROOT_KEYS),
        ("v1.config[]", ITEM_KEYS),
        ("v1.config[].subnets[]", subnet::SUBNET_KEYS),
        ("v1.config[].subnets[].routes[]", subnet::ROUTE_KEYS),
    ]
}

/// Name servers and searched domains.
type Servers = (Vec<IpAddr>, Vec<String>);

/// What is collected while the list is read. Items may stand in any order, so what refers to an interface
/// waits until all of them are known.
#[derive(Default)]
struct CollectedItems {
    interfaces: Vec<NetworkInterface>,
    names: HashSet<String>,
    wiring: InterfaceWiring,
    /// For every interface that has no name servers for itself alone.
    everywhere: Servers,
    /// For one interface alone, with the place that says so.
    by_interface: BTreeMap<String, (Servers, Located<String>)>,
    /// Routes that stand for themselves; networkd wants them at an interface.
    routes: Vec<InterfaceRoute>,
}

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<NetworkInterface> {
    let Some(mut fields) = MappingFields::read_mapping(document, ROOT_KEYS, "network", found) else {
        return Vec::new();
    };
    let mut collected = CollectedItems::default();
    for (index, item) in fields.read_list("config", found).iter().enumerate() {
        let path = format!("network.config[{index}]");
        if let Some(mut item) = MappingFields::read_mapping(item, ITEM_KEYS, path.clone(), found) {
            collected.add(&mut item, path, found);
        }
    }
    collected.finish_interfaces(found)
}

impl CollectedItems {
    fn add(&mut self, fields: &mut MappingFields<'_>, path: String, found: &mut Diagnostics) {
        const TYPES: &[&str] =
            &["physical", "bond", "bridge", "vlan", "nameserver", "route", "loopback", "infiniband"];
        let Some(kind) = fields.read_choice("type", TYPES, found) else { return };
        match kind.value {
            "infiniband" => {
                let message = "InfiniBand interfaces cannot be set up on this system";
                let help = "write a `.network` unit in `coreos.units`";
                fields.refuse_field(
                    "type",
                    Diagnostic::error(DiagnosticCode::Refused, kind.at, message).with_help(help),
                    found,
                );
            }
            // What every machine has needs no unit, unless it gets an address more.
            "loopback" if fields.field_node("subnets").is_none() => {}
            "nameserver" => self.add_nameserver(fields, found),
            "route" => self.routes.extend(read_route(fields, found)),
            _ => self.add_interface(kind.value, fields, path, found),
        }
    }

    fn add_nameserver(&mut self, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
        let (dns, search) = field::read_servers(fields, "address", "search", found);
        let (to_dns, to_search) = match fields.read_text("interface", found) {
            Some(name) => {
                let entry = self.by_interface.entry(name.value.clone());
                &mut entry.or_insert_with(|| (Servers::default(), name)).0
            }
            None => &mut self.everywhere,
        };
        to_dns.extend(dns);
        to_search.extend(search);
    }

    fn add_interface(
        &mut self,
        kind: &str,
        fields: &mut MappingFields<'_>,
        key: String,
        found: &mut Diagnostics,
    ) {
        let name = checked_text(fields, "name", "the name of an interface", value::interface_name, found);
        let mac = checked_text(fields, "mac_address", "a hardware address", value::parse_mac, found);
        // Vultr gives interfaces without a name, to be found by their address.
        let id = match (&name, &mac) {
            (Some(name), _) => name.clone(),
            (None, Some(mac)) if kind == "physical" => mac.clone(),
            _ => {
                if !fields.has_broken_field() {
                    found.push(Diagnostic::error(
                        DiagnosticCode::MissingKey,
                        fields.start_mark(),
                        "this has no `name`",
                    ));
                }
                return;
            }
        };
        if !self.names.insert(id.clone()) {
            return self.add_again(&id, kind, fields, key, found);
        }
        let Some((device, new_name, new_mac)) = self.read_device(kind, name, mac, fields, found) else {
            return;
        };
        let mut interface = NetworkInterface {
            id,
            at: fields.start_mark(),
            key,
            device,
            new_name,
            new_mac,
            ..NetworkInterface::default()
        };
        interface.mtu = field::read_mtu(fields, "mtu", found);
        interface.accept_ra = field::read_switch(fields, "accept_ra", found);
        interface.wake_on_lan = field::read_switch(fields, "wakeonlan", found).unwrap_or(false);
        add_subnets(&mut interface, fields, found);
        if kind == "loopback" {
            // Debian's files have the name servers of the whole machine there, and so has what was made of them.
            // systemd-resolved asks none by this interface.
            self.everywhere.0.append(&mut interface.dns);
            self.everywhere.1.append(&mut interface.search);
        }
        if kind != "loopback" || !interface.addresses.is_empty() {
            self.interfaces.push(interface);
        }
    }

    /// Adds a second description of an interface: what it says of addresses counts too, since without
    /// them the machine may not be reached.
    fn add_again(
        &mut self,
        id: &str,
        kind: &str,
        fields: &mut MappingFields<'_>,
        key: String,
        found: &mut Diagnostics,
    ) {
        let known = self.interfaces.iter_mut().find(|one| one.id == id && kind == "physical");
        let message = match known {
            Some(known) => {
                add_subnets(known, fields, found);
                "this interface is described twice; of this second description only the subnets are used"
            }
            None => "this interface is described twice; this second description is not used",
        };
        found.push(
            Diagnostic::error(DiagnosticCode::DuplicateKey, fields.start_mark(), message).with_key(key),
        );
    }

    /// The device, the name and the hardware address it gets.
    fn read_device(
        &mut self,
        kind: &str,
        name: Option<String>,
        mac: Option<String>,
        fields: &mut MappingFields<'_>,
        found: &mut Diagnostics,
    ) -> Option<(DeviceKind, Option<String>, Option<String>)> {
        let (kind, name) = match (kind, name) {
            ("bond", Some(name)) => (VirtualKind::Bond, name),
            ("bridge", Some(name)) => (VirtualKind::Bridge, name),
            ("vlan", Some(name)) => (VirtualKind::Vlan, name),
            (_, name) => {
                // With a hardware address the name is one to give; without, it is the name to find the card
                // by.
                let new_name = mac.is_some().then(|| name.clone()).flatten();
                return Some((DeviceKind::There { name, mac, driver: None }, new_name, None));
            }
        };
        let (options, own_mac) = match kind {
            VirtualKind::Vlan => (self.read_vlan(&name, fields, found)?, None),
            _ => self.read_members(kind, &name, fields, found),
        };
        Some((DeviceKind::Made { kind, name, options }, None, mac.or(own_mac)))
    }

    fn read_members(
        &mut self,
        kind: VirtualKind,
        name: &str,
        fields: &mut MappingFields<'_>,
        found: &mut Diagnostics,
    ) -> (Options, Option<String>) {
        let list = if kind == VirtualKind::Bond { "bond_interfaces" } else { "bridge_interfaces" };
        for member in fields.read_texts(list, found) {
            self.wiring.masters.insert(member.value, (kind.unit_section(), name.to_owned()));
        }
        let mut parameters = Parameters::of_kind(kind);
        if let Some(Value::Mapping(entries)) = fields.field_node("params").map(|node| &node.value) {
            for entry in entries {
                let name = Located { value: entry.key.clone(), at: entry.key_at };
                parameters.add(&name, &words_of(&entry.value), entry.value.at, &mut self.wiring, found);
            }
        }
        parameters.sorted_options()
    }

    fn read_vlan(
        &mut self,
        name: &str,
        fields: &mut MappingFields<'_>,
        found: &mut Diagnostics,
    ) -> Option<Options> {
        let link = fields.read_text("vlan_link", found);
        // IEEE 802.1Q: 12 bits, of which all ones are reserved.
        let id = fields.read_number::<u32>("vlan_id", found).filter(|id| id.value < 4095);
        let (Some(link), Some(id)) = (link, id) else {
            let message = "a VLAN needs `vlan_link` and `vlan_id`, which is below 4095";
            found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message));
            return None;
        };
        self.wiring.vlans.entry(link.value).or_default().push(name.to_owned());
        Some(vec![("Id", id.value.to_string())])
    }

    fn finish_interfaces(mut self, found: &mut Diagnostics) -> Vec<NetworkInterface> {
        for (name, (servers, at)) in std::mem::take(&mut self.by_interface) {
            if let Some(own) = self.interfaces.iter_mut().find(|one| one.id == name) {
                own.dns.extend(servers.0);
                own.search.extend(servers.1);
                own.has_own_dns = true;
                continue;
            }
            // A name server too many does less harm than none.
            let message = "no interface has this name, so the name servers are used for all of them";
            found.push(Diagnostic::warning(DiagnosticCode::BadValue, at.at, message));
            self.everywhere.0.extend(servers.0);
            self.everywhere.1.extend(servers.1);
        }
        add_servers_everywhere(&mut self.interfaces, &self.everywhere.0, &self.everywhere.1);
        for route in self.routes {
            place_route(&mut self.interfaces, route, found);
        }
        self.wiring.connect_interfaces(self.interfaces)
    }
}

/// Adds the name servers that a document gives for all interfaces, behind an interface's own.
pub(super) fn add_servers_everywhere(interfaces: &mut [NetworkInterface], dns: &[IpAddr], search: &[String]) {
    for interface in interfaces.iter_mut().filter(|one| one.is_outer() && !one.has_own_dns) {
        for server in dns.iter().take(MOST_SERVERS) {
            if !interface.dns.contains(server) {
                interface.dns.push(*server);
            }
        }
        for domain in search.iter().take(MOST_SERVERS) {
            if !interface.search.contains(domain) {
                interface.search.push(domain.clone());
            }
        }
    }
}

/// Gives a route to the interface in whose networks its gateway is, or else to the first that has an
/// address of its family: the kernel refuses a route by an interface that cannot reach the gateway.
fn place_route(interfaces: &mut [NetworkInterface], route: InterfaceRoute, found: &mut Diagnostics) {
    let family = route.via.unwrap_or(route.to.ip);
    let is_near = |one: &NetworkInterface| {
        one.is_outer()
            && one
                .addresses
                .iter()
                .any(|address| route.via.is_some_and(|via| address.net.contains_address(via)))
    };
    let may_carry = |one: &NetworkInterface| {
        one.is_outer()
            && (one.has_static(family)
                || (if family.is_ipv4() { one.dhcp4 } else { one.dhcp6 || one.accept_ra == Some(true) }))
    };
    let near = interfaces.iter().position(is_near);
    let place = near.or_else(|| interfaces.iter().position(may_carry));
    if let Some(place) = place {
        interfaces[place].routes.push(route);
        return;
    }
    let message = "no interface has an address by which this route could lead, so it is left out";
    found.push(Diagnostic::error(DiagnosticCode::BadValue, route.at, message));
}
