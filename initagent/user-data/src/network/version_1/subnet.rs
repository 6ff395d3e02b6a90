//! The subnets of version 1's interfaces, and its routes.
//!
//! Knows that providers leave out types and sizes of networks. Refuses to know which interface a route that
//! stands for itself belongs to. Invariant: a route with anything wrong in it is left out as a whole.

use crate::cloudconfig::fields::{Fields, Key, key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use crate::network::field::{self, checked};
use crate::network::interface::{Interface, Options, Route};
use crate::network::value;

pub(super) const SUBNET_KEYS: &[Key] = &[
    key("type"),
    key("address"),
    key("ip_address"),
    key("netmask"),
    key("prefix"),
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
    key("pointopoint"),
    key("mtu"),
];
pub(super) const ROUTE_KEYS: &[Key] = &[
    key("destination"),
    key("network"),
    key("netmask"),
    key("prefix"),
    key("gateway"),
    key("metric"),
    key("id"),
    key("type"),
];

pub(super) fn add_subnets(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    let path = fields.child("subnets");
    for (index, item) in fields.list("subnets", found).iter().enumerate() {
        if let Some(mut subnet) = Fields::open(item, SUBNET_KEYS, format!("{path}[{index}]"), found) {
            add_subnet(interface, &mut subnet, found);
        }
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
        "loopback",
        "manual",
        "static",
        "static6",
    ];
    let kind = match fields.choice("type", TYPES, found) {
        Some(kind) => kind.value,
        None if fields.broken() => return,
        // Hetzner says no type where it says an address.
        None => "static",
    };
    match kind {
        "dhcp" | "dhcp4" => {
            interface.dhcp4 = true;
            add_metric(fields, &mut interface.dhcp4_options, found);
        }
        "dhcp6" | "ipv6_dhcpv6-stateful" => interface.dhcp6 = true,
        "ipv6_dhcpv6-stateless" | "ipv6_slaac" => interface.accept_ra = Some(true),
        "loopback" | "manual" => {}
        _ => add_static(interface, fields, found),
    }
    let (dns, search) = field::read_servers(fields, "dns_nameservers", "dns_search", found);
    interface.dns.extend(dns);
    interface.search.extend(search);
    let path = fields.child("routes");
    for (index, item) in fields.list("routes", found).iter().enumerate() {
        if let Some(mut fields) = Fields::open(item, ROUTE_KEYS, format!("{path}[{index}]"), found) {
            interface.routes.extend(read_route(&mut fields, found));
        }
    }
}

fn add_metric(fields: &mut Fields<'_>, options: &mut Options, found: &mut Diagnostics) {
    if !options.iter().any(|(name, _)| *name == "RouteMetric") {
        field::set_option(fields, "metric", ("DHCPv4", "RouteMetric"), options, found);
    }
}

fn add_static(interface: &mut Interface, fields: &mut Fields<'_>, found: &mut Diagnostics) {
    let mask = mask(fields, found);
    let name = if fields.node("address").is_some() { "address" } else { "ip_address" };
    if fields.node(name).is_none() {
        let message = "this has neither a `type` nor an `address`, or it is static without an `address`";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.at(), message));
    }
    let address = field::address_or_guess(fields, name, mask.as_deref(), found);
    if address.as_ref().is_some_and(|address| address.net.ip.is_ipv6()) {
        // What one family takes is no limit for the other.
        field::set_option(fields, "mtu", ("Network", "IPv6MTUBytes"), &mut interface.network_options, found);
    } else if interface.mtu.is_none() {
        interface.mtu = field::read_mtu(fields, "mtu", found);
    }
    interface.addresses.extend(address);
    if let Some(via) = field::read_gateway(fields, "gateway", found) {
        let mut route =
            Route::default_by(via, fields.node("gateway").map_or_else(|| fields.at(), |node| node.at));
        field::set_option(fields, "metric", ("Route", "Metric"), &mut route.options, found);
        interface.routes.push(route);
    }
}

/// The size of a network, as a mask or a number.
fn mask(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let prefix = fields.text("prefix", found);
    fields.text("netmask", found).or(prefix).map(|mask| mask.value)
}

pub(super) fn read_route(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Route> {
    let name = if fields.node("network").is_some() { "network" } else { "destination" };
    let via = field::read_gateway(fields, "gateway", found);
    let mask = mask(fields, found);
    let mut options = Options::new();
    field::set_option(fields, "metric", ("Route", "Metric"), &mut options, found);
    // In a list of items it says that this is a route; in a subnet, what kind of route.
    if fields.text("type", found).is_some_and(|kind| kind.value != "route") {
        field::set_option(fields, "type", ("Route", "Type"), &mut options, found);
    }
    let to = checked(fields, name, "a network", |to| value::destination(to, mask.as_deref(), via), found);
    if fields.broken() {
        return None;
    }
    let Some(to) = to else {
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.at(), "a route needs `destination`"));
        return None;
    };
    Some(Route { options, ..Route::new(to, via, fields.at()) })
}
