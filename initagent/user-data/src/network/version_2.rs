//! Version 2, which is netplan's format.
//!
//! Knows Ethernet, bonds, bridges and VLANs. Refuses the other kinds of interface by name.
//! Invariant: an interface whose signs can't be read is left alone rather than guessed.

use std::net::IpAddr;

use crate::cloudconfig::fields::{Fields, Key, key, no_effect, refused, text_of};
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::At;
use document::yaml::{Node, Value};

use super::interface::{Device, Interface, Kind, Route, Wiring};
use super::value;

const ROOT_KEYS: &[Key] = &[
    key("version"),
    key("ethernets"),
    key("bonds"),
    key("bridges"),
    key("vlans"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused("wifis", "wireless networks need programs that the image does not have"),
    refused("modems", "mobile networks need programs that the image does not have"),
    refused("tunnels", "write a `.netdev` unit in `coreos.units`"),
    refused("vrfs", "write a `.netdev` unit in `coreos.units`"),
    refused("openvswitch", "write a bridge, or run Open vSwitch in a container"),
    refused("nm_devices", "NetworkManager is not in the image"),
];
const INTERFACE_KEYS: &[Key] = &[
    key("match"),
    key("set_name"),
    key("wakeonlan"),
    key("dhcp4"),
    key("dhcp6"),
    key("dhcp4_overrides"),
    key("dhcp6_overrides"),
    key("addresses"),
    key("gateway4"),
    key("gateway6"),
    key("routes"),
    key("nameservers"),
    key("mtu"),
    key("optional"),
    key("accept_ra"),
    key("macaddress"),
    key("interfaces"),
    key("parameters"),
    key("link"),
    key("id"),
    no_effect("critical", "networkd keeps what it configured when it restarts"),
    no_effect("dhcp_identifier", "networkd's own identifier is used"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused("auth", "802.1X needs programs that the image does not have"),
    refused("routing_policy", "write a `.network` unit in `coreos.units`"),
];
const MATCH_KEYS: &[Key] = &[key("name"), key("macaddress"), key("driver")];
const DNS_KEYS: &[Key] = &[key("addresses"), key("search")];
const ROUTE_KEYS: &[Key] = &[
    key("to"),
    key("via"),
    key("metric"),
    key("on_link"),
    key("table"),
    refused("from", "write a `.network` unit in `coreos.units`"),
    refused("type", "write a `.network` unit in `coreos.units`"),
    refused("scope", "write a `.network` unit in `coreos.units`"),
    refused("mtu", "write a `.network` unit in `coreos.units`"),
];
const OVERRIDE_KEYS: &[Key] = &[
    key("route_metric"),
    key("use_dns"),
    key("use_domains"),
    key("use_hostname"),
    key("use_mtu"),
    key("use_ntp"),
    key("use_routes"),
    key("send_hostname"),
    key("hostname"),
];
/// networkd's names of what may be overridden.
const OVERRIDES: [(&str, &str); 9] = [
    ("hostname", "Hostname"),
    ("route_metric", "RouteMetric"),
    ("send_hostname", "SendHostname"),
    ("use_dns", "UseDNS"),
    ("use_domains", "UseDomains"),
    ("use_hostname", "UseHostname"),
    ("use_mtu", "UseMTU"),
    ("use_ntp", "UseNTP"),
    ("use_routes", "UseRoutes"),
];
/// Settings of bonds: version 2's names, networkd's, and the unit of a bare number.
pub(super) const BOND_OPTIONS: [(&str, &str, &str); 18] = [
    ("mode", "Mode", ""),
    ("ad_select", "AdSelect", ""),
    ("all_slaves_active", "AllSlavesActive", ""),
    ("arp_all_targets", "ARPAllTargets", ""),
    ("arp_interval", "ARPIntervalSec", "ms"),
    ("arp_validate", "ARPValidate", ""),
    ("down_delay", "DownDelaySec", "ms"),
    ("fail_over_mac_policy", "FailOverMACPolicy", ""),
    ("gratuitous_arp", "GratuitousARP", ""),
    ("lacp_rate", "LACPTransmitRate", ""),
    ("learn_packet_interval", "LearnPacketIntervalSec", "s"),
    ("mii_monitor_interval", "MIIMonitorSec", "ms"),
    ("min_links", "MinLinks", ""),
    ("packets_per_slave", "PacketsPerSlave", ""),
    ("primary_reselect_policy", "PrimaryReselectPolicy", ""),
    ("resend_igmp", "ResendIGMP", ""),
    ("transmit_hash_policy", "TransmitHashPolicy", ""),
    ("up_delay", "UpDelaySec", "ms"),
];
const BOND_KEYS: &[Key] = &[
    key("mode"),
    key("ad_select"),
    key("all_slaves_active"),
    key("arp_all_targets"),
    key("arp_interval"),
    key("arp_validate"),
    key("down_delay"),
    key("fail_over_mac_policy"),
    key("gratuitous_arp"),
    key("lacp_rate"),
    key("learn_packet_interval"),
    key("mii_monitor_interval"),
    key("min_links"),
    key("packets_per_slave"),
    key("primary_reselect_policy"),
    key("resend_igmp"),
    key("transmit_hash_policy"),
    key("up_delay"),
    refused("arp_ip_targets", "write a `.netdev` unit in `coreos.units`"),
    refused("primary", "write a `.network` unit with PrimarySlave= in `coreos.units`"),
];
pub(super) const BRIDGE_OPTIONS: [(&str, &str, &str); 6] = [
    ("ageing_time", "AgeingTimeSec", "s"),
    ("forward_delay", "ForwardDelaySec", "s"),
    ("hello_time", "HelloTimeSec", "s"),
    ("max_age", "MaxAgeSec", "s"),
    ("priority", "Priority", ""),
    ("stp", "STP", ""),
];
const BRIDGE_KEYS: &[Key] = &[
    key("ageing_time"),
    key("forward_delay"),
    key("hello_time"),
    key("max_age"),
    key("priority"),
    key("stp"),
    refused("path_cost", "write a `.network` unit in `coreos.units`"),
    refused("port_priority", "write a `.network` unit in `coreos.units`"),
];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("v2", ROOT_KEYS),
        ("v2.*.*", INTERFACE_KEYS),
        ("v2.*.*.match", MATCH_KEYS),
        ("v2.*.*.nameservers", DNS_KEYS),
        ("v2.*.*.routes[]", ROUTE_KEYS),
        ("v2.*.*.dhcp4_overrides", OVERRIDE_KEYS),
        ("v2.bonds.*.parameters", BOND_KEYS),
        ("v2.bridges.*.parameters", BRIDGE_KEYS),
    ]
}

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<Interface> {
    let Some(fields) = Fields::open(document, ROOT_KEYS, "network", found) else { return Vec::new() };
    let mut interfaces = Vec::new();
    let mut wiring = Wiring::default();
    for kind in ["ethernets", "bonds", "bridges", "vlans"] {
        let Some(Value::Mapping(entries)) = fields.node(kind).map(|node| &node.value) else { continue };
        for entry in entries {
            let path = format!("{}.{}", fields.child(kind), entry.key);
            let opened = Fields::open(&entry.value, INTERFACE_KEYS, path.clone(), found);
            let Some(mut fields) = opened else { continue };
            if let Some(device) = device(kind, &entry.key, &mut fields, &mut wiring, found) {
                let mut interface = Interface {
                    id: entry.key.clone(),
                    at: entry.key_at,
                    key: path,
                    device,
                    ..Interface::default()
                };
                settings(&mut interface, &mut fields, found);
                interfaces.push(interface);
            }
        }
    }
    wiring.connect(interfaces)
}

fn device(
    kind: &str,
    id: &str,
    fields: &mut Fields<'_>,
    wiring: &mut Wiring,
    found: &mut Diagnostics,
) -> Option<Device> {
    if kind == "ethernets" {
        return ethernet(id, fields, found);
    }
    let Some(name) = value::interface_name(id) else {
        let message = "this can't be the name of an interface: at most 15 letters, digits, `-`, `_` and `.`";
        found.push(Diagnostic::error(Code::BadValue, fields.at(), message));
        return None;
    };
    let (kind, options) = match kind {
        "bonds" => (Kind::Bond, parameters(fields, BOND_KEYS, &BOND_OPTIONS, found)),
        "bridges" => (Kind::Bridge, parameters(fields, BRIDGE_KEYS, &BRIDGE_OPTIONS, found)),
        _ => (Kind::Vlan, vlan(fields, &name, wiring, found)?),
    };
    for member in fields.texts("interfaces", found) {
        wiring.masters.insert(member.value, (kind.section(), name.clone()));
    }
    Some(Device::Made { kind, name, options })
}

/// An Ethernet interface is found by its signs, or else by its identifier.
fn ethernet(id: &str, fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Device> {
    let Some(node) = fields.node("match") else {
        let name = value::interface_name(id);
        if name.is_none() {
            let message = "this has no `match`, and its key can't be the name of an interface";
            found.push(Diagnostic::error(Code::BadValue, fields.at(), message));
        }
        return name.map(|name| Device::There { name: Some(name), mac: None, driver: None });
    };
    let mut signs = Fields::open(node, MATCH_KEYS, fields.child("match"), found)?;
    let mac = checked(&mut signs, "macaddress", "a hardware address", value::mac, found);
    let name =
        checked(&mut signs, "name", "the name of an interface, or a pattern", value::name_pattern, found);
    let driver = checked(&mut signs, "driver", "the name of a driver", value::name_pattern, found);
    if signs.broken() || (mac.is_none() && name.is_none() && driver.is_none()) {
        if !signs.broken() {
            let message = "`match` has no sign to find the interface by";
            found.push(Diagnostic::error(Code::MissingKey, node.at, message));
        }
        return None;
    }
    Some(Device::There { name, mac, driver })
}

fn vlan(
    fields: &mut Fields<'_>,
    name: &str,
    wiring: &mut Wiring,
    found: &mut Diagnostics,
) -> Option<Vec<(&'static str, String)>> {
    let link = fields.text("link", found);
    let id = fields.number::<u32>("id", found).filter(|id| id.value < 4095);
    let (Some(link), Some(id)) = (link, id) else {
        let message = "a VLAN needs `link` and `id`, which is below 4095";
        found.push(Diagnostic::error(Code::MissingKey, fields.at(), message));
        return None;
    };
    wiring.vlans.entry(link.value).or_default().push(name.to_owned());
    Some(vec![("Id", id.value.to_string())])
}

/// Settings by a table of names.
fn parameters(
    fields: &Fields<'_>,
    keys: &'static [Key],
    options: &[(&'static str, &'static str, &str)],
    found: &mut Diagnostics,
) -> Vec<(&'static str, String)> {
    let Some(node) = fields.node("parameters") else { return Vec::new() };
    let Some(mut parameters) = Fields::open(node, keys, fields.child("parameters"), found) else {
        return Vec::new();
    };
    let mut settings = Vec::new();
    for (name, setting, unit) in options {
        if let Some(word) = checked(&mut parameters, name, "one word", value::word, found) {
            settings.push((*setting, with_unit(&word, unit)));
        }
    }
    settings
}

/// A bare number gets the unit that the format means.
pub(super) fn with_unit(word: &str, unit: &str) -> String {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { format!("{word}{unit}") } else { word.to_owned() }
}

fn settings(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    interface.new_name =
        checked(fields, "set_name", "the name of an interface", value::interface_name, found);
    interface.new_mac = checked(fields, "macaddress", "a hardware address", value::mac, found);
    interface.mtu = fields.number("mtu", found).map(|mtu| mtu.value);
    let mut flag = |name: &str, found: &mut Diagnostics| fields.flag(name, found).map(|flag| flag.value);
    interface.wake_on_lan = flag("wakeonlan", found).unwrap_or(false);
    interface.optional = flag("optional", found).unwrap_or(false);
    interface.dhcp4 = flag("dhcp4", found).unwrap_or(false);
    interface.dhcp6 = flag("dhcp6", found).unwrap_or(false);
    interface.accept_ra = flag("accept_ra", found);
    for address in address_items(fields, found) {
        match value::with_prefix(&address.value, None) {
            Some(address) => interface.addresses.push(address),
            None => found.push(
                bad(&address, "an address with its prefix, such as 10.0.0.2/24")
                    .key(fields.child("addresses")),
            ),
        }
    }
    for name in ["gateway4", "gateway6"] {
        if let Some(via) = checked(fields, name, "an address", value::ip, found) {
            interface.routes.push(default_route(via));
        }
    }
    routes(interface, fields, found);
    nameservers(interface, fields, found);
    interface.dhcp4_options = overrides(fields, "dhcp4_overrides", found);
    interface.dhcp6_options = overrides(fields, "dhcp6_overrides", found);
}

/// netplan lets an address be a mapping of itself to its options; the options are left out.
fn address_items(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<At<String>> {
    let items = fields.list("addresses", found);
    let item = |node: &Node| match &node.value {
        Value::Mapping(entries) => {
            entries.first().map(|entry| At { value: entry.key.clone(), at: entry.key_at })
        }
        _ => text_of(node),
    };
    items.iter().filter_map(item).collect()
}

pub(super) fn default_route(via: IpAddr) -> Route {
    let to = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Route { to: to.to_owned(), via: Some(via), ..Route::default() }
}

fn routes(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    let path = fields.child("routes");
    for (index, item) in fields.list("routes", found).iter().enumerate() {
        let Some(mut route) = Fields::open(item, ROUTE_KEYS, format!("{path}[{index}]"), found) else {
            continue;
        };
        let via = checked(&mut route, "via", "an address", value::ip, found);
        let number = |route: &mut Fields<'_>, name, found: &mut Diagnostics| {
            route.number::<u32>(name, found).map(|number| number.value)
        };
        let (metric, table) = (number(&mut route, "metric", found), number(&mut route, "table", found));
        let on_link = route.flag("on_link", found).is_some_and(|flag| flag.value);
        let to = checked(
            &mut route,
            "to",
            "a network or `default`",
            |to| value::destination(to, None, via),
            found,
        );
        match to {
            Some(to) if !route.broken() => interface.routes.push(Route { to, via, metric, table, on_link }),
            _ if route.broken() => {}
            _ => found.push(Diagnostic::error(Code::MissingKey, route.at(), "a route needs `to`")),
        }
    }
}

fn nameservers(interface: &mut Interface, fields: &Fields<'_>, found: &mut Diagnostics) {
    let Some(node) = fields.node("nameservers") else { return };
    let Some(mut servers) = Fields::open(node, DNS_KEYS, fields.child("nameservers"), found) else { return };
    for text in servers.texts("addresses", found) {
        match value::ip(&text.value) {
            Some(address) => interface.dns.push(address),
            None => found.push(bad(&text, "an address").key(servers.child("addresses"))),
        }
    }
    for text in servers.texts("search", found) {
        match value::domain(&text.value) {
            Some(domain) => interface.search.push(domain),
            None => found.push(bad(&text, "a domain").key(servers.child("search"))),
        }
    }
}

fn overrides(fields: &Fields<'_>, name: &str, found: &mut Diagnostics) -> Vec<(&'static str, String)> {
    let Some(node) = fields.node(name) else { return Vec::new() };
    let Some(mut overrides) = Fields::open(node, OVERRIDE_KEYS, fields.child(name), found) else {
        return Vec::new();
    };
    let mut settings = Vec::new();
    for (key, setting) in OVERRIDES {
        if let Some(word) = checked(&mut overrides, key, "one word", value::word, found) {
            settings.push((setting, word));
        }
    }
    settings
}

/// A text that must look like something.
pub(super) fn checked<T>(
    fields: &mut Fields<'_>,
    name: &str,
    wanted: &str,
    check: impl Fn(&str) -> Option<T>,
    found: &mut Diagnostics,
) -> Option<T> {
    let text = fields.text(name, found)?;
    let value = check(&text.value);
    if value.is_none() {
        let message = format!("`{name}` must be {wanted}");
        fields.refuse(name, Diagnostic::error(Code::BadValue, text.at, message), found);
    }
    value
}

pub(super) fn bad(text: &At<String>, wanted: &str) -> Diagnostic {
    Diagnostic::error(Code::BadValue, text.at, format!("this must be {wanted}"))
}
