//! Version 1: a list of interfaces with subnets, as older clouds give it.
//!
//! Knows physical interfaces, bonds, bridges, VLANs, name servers and routes. Refuses other types by
//! name. Invariant: an item that can't be read costs itself only.

use std::net::IpAddr;

use crate::cloudconfig::fields::{Fields, Key, key, no_effect};
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::yaml::Node;

use super::interface::{Device, Interface, Kind, Route, Wiring};
use super::value;
use super::version_2::{bad, checked, default_route, with_unit};

const ROOT_KEYS: &[Key] = &[key("version"), key("config")];
const ITEM_KEYS: &[Key] = &[
    key("type"),
    key("name"),
    key("mac_address"),
    key("mtu"),
    key("subnets"),
    key("accept_ra"),
    key("bond_interfaces"),
    key("bridge_interfaces"),
    key("params"),
    key("vlan_link"),
    key("vlan_id"),
    key("wakeonlan"),
    key("address"),
    key("search"),
    key("interface"),
    key("destination"),
    key("netmask"),
    key("gateway"),
    key("metric"),
    key("id"),
    no_effect("keep_configuration", "networkd keeps what it configured when it restarts"),
];
const SUBNET_KEYS: &[Key] = &[
    key("type"),
    key("address"),
    key("netmask"),
    key("gateway"),
    key("dns_nameservers"),
    key("dns_search"),
    key("routes"),
    key("metric"),
    key("broadcast"),
    key("control"),
    key("ipv4"),
    key("ipv6"),
    key("scope"),
];
const ROUTE_KEYS: &[Key] =
    &[key("destination"), key("network"), key("netmask"), key("gateway"), key("metric"), key("id")];
/// The settings of ifenslave and brctl that these lists have, with networkd's and the unit of a number.
const BOND_OPTIONS: [(&str, &str, &str); 12] = [
    ("mode", "Mode", ""),
    ("ad_select", "AdSelect", ""),
    ("arp_interval", "ARPIntervalSec", "ms"),
    ("downdelay", "DownDelaySec", "ms"),
    ("fail_over_mac", "FailOverMACPolicy", ""),
    ("lacp_rate", "LACPTransmitRate", ""),
    ("miimon", "MIIMonitorSec", "ms"),
    ("min_links", "MinLinks", ""),
    ("num_grat_arp", "GratuitousARP", ""),
    ("primary_reselect", "PrimaryReselectPolicy", ""),
    ("updelay", "UpDelaySec", "ms"),
    ("xmit_hash_policy", "TransmitHashPolicy", ""),
];
const BRIDGE_OPTIONS: [(&str, &str, &str); 6] = [
    ("ageing", "AgeingTimeSec", "s"),
    ("bridgeprio", "Priority", ""),
    ("fd", "ForwardDelaySec", "s"),
    ("hello", "HelloTimeSec", "s"),
    ("maxage", "MaxAgeSec", "s"),
    ("stp", "STP", ""),
];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("v1", ROOT_KEYS),
        ("v1.config[]", ITEM_KEYS),
        ("v1.config[].subnets[]", SUBNET_KEYS),
        ("v1.config[].subnets[].routes[]", ROUTE_KEYS),
    ]
}

/// What is collected while the list is read.
#[derive(Default)]
struct Collected {
    interfaces: Vec<Interface>,
    wiring: Wiring,
    /// For every interface that has no name servers of its own.
    dns: Vec<IpAddr>,
    search: Vec<String>,
    /// Routes that stand for themselves; networkd wants them at an interface.
    routes: Vec<Route>,
}

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<Interface> {
    let Some(mut fields) = Fields::open(document, ROOT_KEYS, "network", found) else { return Vec::new() };
    let mut collected = Collected::default();
    for (index, item) in fields.list("config", found).iter().enumerate() {
        let path = format!("network.config[{index}]");
        if let Some(mut item) = Fields::open(item, ITEM_KEYS, path.clone(), found) {
            collected.add(&mut item, path, found);
        }
    }
    collected.finish()
}

impl Collected {
    fn add(&mut self, fields: &mut Fields<'_>, path: String, found: &mut Diagnostics) {
        const TYPES: &[&str] = &["physical", "bond", "bridge", "vlan", "nameserver", "route", "loopback"];
        let Some(kind) = fields.choice("type", TYPES, found) else { return };
        match kind.value {
            "loopback" => {}
            "nameserver" => self.add_nameserver(fields, found),
            "route" => self.routes.extend(route(fields, "destination", found)),
            _ => self.add_interface(kind.value, fields, path, found),
        }
    }

    fn add_nameserver(&mut self, fields: &mut Fields<'_>, found: &mut Diagnostics) {
        let (dns, search) = servers(fields, "address", "search", found);
        let interface = fields.text("interface", found);
        let own = interface.and_then(|name| self.interfaces.iter_mut().find(|one| one.id == name.value));
        let (to_dns, to_search) = match own {
            Some(own) => (&mut own.dns, &mut own.search),
            None => (&mut self.dns, &mut self.search),
        };
        to_dns.extend(dns);
        to_search.extend(search);
    }

    fn add_interface(&mut self, kind: &str, fields: &mut Fields<'_>, key: String, found: &mut Diagnostics) {
        let name = checked(fields, "name", "the name of an interface", value::interface_name, found);
        let Some(name) = name else {
            if !fields.broken() {
                found.push(Diagnostic::error(Code::MissingKey, fields.at(), "this has no `name`"));
            }
            return;
        };
        let mac = checked(fields, "mac_address", "a hardware address", value::mac, found);
        let Some((device, new_name, new_mac)) = self.device(kind, &name, mac, fields, found) else { return };
        let mut interface =
            Interface { id: name, at: fields.at(), key, device, new_name, new_mac, ..Interface::default() };
        interface.mtu = fields.number("mtu", found).map(|mtu| mtu.value);
        interface.accept_ra = fields.flag("accept_ra", found).map(|flag| flag.value);
        interface.wake_on_lan = fields.flag("wakeonlan", found).is_some_and(|flag| flag.value);
        let path = fields.child("subnets");
        for (index, item) in fields.list("subnets", found).iter().enumerate() {
            if let Some(mut subnet) = Fields::open(item, SUBNET_KEYS, format!("{path}[{index}]"), found) {
                add_subnet(&mut interface, &mut subnet, found);
            }
        }
        self.interfaces.push(interface);
    }

    /// The device, the name and the hardware address it gets.
    fn device(
        &mut self,
        kind: &str,
        name: &str,
        mac: Option<String>,
        fields: &mut Fields<'_>,
        found: &mut Diagnostics,
    ) -> Option<(Device, Option<String>, Option<String>)> {
        let (kind, options) = match kind {
            "bond" => (
                Kind::Bond,
                self.members(name, "bond_interfaces", "bond_", &BOND_OPTIONS, Kind::Bond, fields, found),
            ),
            "bridge" => {
                let options = self.members(
                    name,
                    "bridge_interfaces",
                    "bridge_",
                    &BRIDGE_OPTIONS,
                    Kind::Bridge,
                    fields,
                    found,
                );
                (Kind::Bridge, options)
            }
            "vlan" => (Kind::Vlan, self.vlan(name, fields, found)?),
            _ => {
                let new_name = mac.is_some().then(|| name.to_owned());
                let device = Device::There { name: Some(name.to_owned()), mac, driver: None };
                return Some((device, new_name, None));
            }
        };
        Some((Device::Made { kind, name: name.to_owned(), options }, None, mac))
    }

    #[expect(clippy::too_many_arguments, reason = "bonds and bridges differ in names only")]
    fn members(
        &mut self,
        name: &str,
        list: &str,
        prefix: &str,
        options: &[(&'static str, &'static str, &str)],
        kind: Kind,
        fields: &mut Fields<'_>,
        found: &mut Diagnostics,
    ) -> Vec<(&'static str, String)> {
        for member in fields.texts(list, found) {
            self.wiring.masters.insert(member.value, (kind.section(), name.to_owned()));
        }
        let Some(document::yaml::Value::Mapping(entries)) = fields.node("params").map(|node| &node.value)
        else {
            return Vec::new();
        };
        let mut settings = Vec::new();
        for entry in entries {
            let written = entry.key.replace('-', "_");
            let short = written.strip_prefix(prefix).unwrap_or(&written);
            let option = options.iter().find(|(known, ..)| *known == short);
            let word =
                crate::cloudconfig::fields::text_of(&entry.value).and_then(|text| value::word(&text.value));
            match (option, word) {
                (Some((_, setting, unit)), Some(word)) => settings.push((*setting, with_unit(&word, unit))),
                (Some(_), None) => {
                    found.push(Diagnostic::error(Code::BadValue, entry.value.at, "this must be one word"));
                }
                (None, _) => found.push(
                    Diagnostic::warning(
                        Code::UnknownKey,
                        entry.key_at,
                        format!("`{}` is not set here", entry.key),
                    )
                    .help("write a `.netdev` unit in `coreos.units`"),
                ),
            }
        }
        settings.sort_by_key(|(setting, _)| *setting);
        settings
    }

    fn vlan(
        &mut self,
        name: &str,
        fields: &mut Fields<'_>,
        found: &mut Diagnostics,
    ) -> Option<Vec<(&'static str, String)>> {
        let link = fields.text("vlan_link", found);
        let id = fields.number::<u32>("vlan_id", found).filter(|id| id.value < 4095);
        let (Some(link), Some(id)) = (link, id) else {
            let message = "a VLAN needs `vlan_link` and `vlan_id`, which is below 4095";
            found.push(Diagnostic::error(Code::MissingKey, fields.at(), message));
            return None;
        };
        self.wiring.vlans.entry(link.value).or_default().push(name.to_owned());
        Some(vec![("Id", id.value.to_string())])
    }

    fn finish(mut self) -> Vec<Interface> {
        for interface in self.interfaces.iter_mut().filter(|one| one.dns.is_empty()) {
            interface.dns.clone_from(&self.dns);
            interface.search.extend(self.search.iter().cloned());
        }
        let carrier =
            self.interfaces.iter_mut().find(|one| !one.addresses.is_empty() || one.dhcp4 || one.dhcp6);
        if let Some(carrier) = carrier {
            carrier.routes.extend(self.routes);
        }
        self.wiring.connect(self.interfaces)
    }
}

fn add_subnet(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    const TYPES: &[&str] = &[
        "dhcp",
        "dhcp4",
        "dhcp6",
        "ipv6_dhcpv6-stateful",
        "ipv6_dhcpv6-stateless",
        "ipv6_slaac",
        "manual",
        "static",
        "static6",
    ];
    let Some(kind) = fields.choice("type", TYPES, found) else { return };
    match kind.value {
        "dhcp" | "dhcp4" => interface.dhcp4 = true,
        "dhcp6" | "ipv6_dhcpv6-stateful" => interface.dhcp6 = true,
        "ipv6_dhcpv6-stateless" | "ipv6_slaac" => interface.accept_ra = Some(true),
        "manual" => {}
        _ => add_static(interface, fields, found),
    }
    let (dns, search) = servers(fields, "dns_nameservers", "dns_search", found);
    interface.dns.extend(dns);
    interface.search.extend(search);
    let path = fields.child("routes");
    for (index, item) in fields.list("routes", found).iter().enumerate() {
        if let Some(mut fields) = Fields::open(item, ROUTE_KEYS, format!("{path}[{index}]"), found) {
            let name = if fields.node("network").is_some() { "network" } else { "destination" };
            interface.routes.extend(route(&mut fields, name, found));
        }
    }
}

fn add_static(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    let mask = fields.text("netmask", found).map(|mask| mask.value);
    let address =
        checked(fields, "address", "an address", |text| value::with_prefix(text, mask.as_deref()), found);
    interface.addresses.extend(address);
    if let Some(via) = checked(fields, "gateway", "an address", value::ip, found) {
        let metric = fields.number("metric", found).map(|metric| metric.value);
        interface.routes.push(Route { metric, ..default_route(via) });
    }
}

fn route(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<Route> {
    let via = checked(fields, "gateway", "an address", value::ip, found);
    let mask = fields.text("netmask", found).map(|mask| mask.value);
    let metric = fields.number("metric", found).map(|metric| metric.value);
    let to = checked(fields, name, "a network", |to| value::destination(to, mask.as_deref(), via), found)?;
    (!fields.broken()).then_some(Route { to, via, metric, ..Route::default() })
}

fn servers(
    fields: &mut Fields<'_>,
    addresses: &str,
    domains: &str,
    found: &mut Diagnostics,
) -> (Vec<IpAddr>, Vec<String>) {
    let (mut dns, mut search) = (Vec::new(), Vec::new());
    for text in fields.texts(addresses, found) {
        match value::ip(&text.value) {
            Some(address) => dns.push(address),
            None => found.push(bad(&text, "an address").key(fields.child(addresses))),
        }
    }
    for text in fields.texts(domains, found) {
        match value::domain(&text.value) {
            Some(domain) => search.push(domain),
            None => found.push(bad(&text, "a domain").key(fields.child(domains))),
        }
    }
    (dns, search)
}
