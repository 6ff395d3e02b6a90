//! The subnets of version 1's interfaces, and its routes.
//!
//! Knows that providers leave out types and sizes of networks. Refuses to know which interface a route that
//! stands for itself belongs to. Invariant: a route with anything wrong in it is left out as a whole.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/network-config-format-v1.html>.

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use crate::network::field::{self, checked_text};
use crate::network::interface::{InterfaceRoute, NetworkInterface, Options};
use crate::network::value;

pub(super) const SUBNET_KEYS: &[FieldKey] = &[
    supported_key("type"),
    supported_key("address"),
    supported_key("ip_address"),
    supported_key("netmask"),
    supported_key("prefix"),
    supported_key("gateway"),
    supported_key("dns_nameservers"),
    supported_key("dns_search"),
    supported_key("routes"),
    supported_key("metric"),
    supported_key("broadcast"),
    supported_key("control"),
    supported_key("ipv4"),
    supported_key("ipv6"),
    supported_key("scope"),
    supported_key("pointopoint"),
    supported_key("mtu"),
];
pub(super) const ROUTE_KEYS: &[FieldKey] = &[
    supported_key("destination"),
    supported_key("network"),
    supported_key("netmask"),
    supported_key("prefix"),
    supported_key("gateway"),
    supported_key("metric"),
    supported_key("id"),
    supported_key("type"),
];

pub(super) fn add_subnets(
    interface: &mut NetworkInterface,
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) {
    let path = fields.child_path("subnets");
    for (index, item) in fields.read_list("subnets", found).iter().enumerate() {
        if let Some(mut subnet) =
            MappingFields::read_mapping(item, SUBNET_KEYS, format!("{path}[{index}]"), found)
        {
            add_subnet(interface, &mut subnet, found);
        }
    }
}

fn add_subnet(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
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
    let kind = match fields.read_choice("type", TYPES, found) {
        Some(kind) => kind.value,
        None if fields.has_broken_field() => return,
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
        // cloud-init uses an address whatever the type; containers give lo one of theirs in this way.
        "loopback" | "manual" if fields.field_node("address").is_none() => {}
        _ => add_static(interface, fields, found),
    }
    let (dns, search) = field::read_servers(fields, "dns_nameservers", "dns_search", found);
    interface.dns.extend(dns);
    interface.search.extend(search);
    let path = fields.child_path("routes");
    for (index, item) in fields.read_list("routes", found).iter().enumerate() {
        if let Some(mut fields) =
            MappingFields::read_mapping(item, ROUTE_KEYS, format!("{path}[{index}]"), found)
        {
            interface.routes.extend(read_route(&mut fields, found));
        }
    }
}

fn add_metric(fields: &mut MappingFields<'_>, options: &mut Options, found: &mut Diagnostics) {
    if !options.iter().any(|(name, _)| *name == "RouteMetric") {
        field::set_option(fields, "metric", ("DHCPv4", "RouteMetric"), options, found);
    }
}

fn add_static(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    let mask = read_netmask(fields, found);
    let name = if fields.field_node("address").is_some() { "address" } else { "ip_address" };
    if fields.field_node(name).is_none() {
        let message = "this has neither a `type` nor an `address`, or it is static without an `address`";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message));
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
        let mut route = InterfaceRoute::default_by(
            via,
            fields.field_node("gateway").map_or_else(|| fields.start_mark(), |node| node.at),
        );
        field::set_option(fields, "metric", ("Route", "Metric"), &mut route.options, found);
        interface.routes.push(route);
    }
}

/// The size of a network, as a mask or a number.
fn read_netmask(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let prefix = fields.read_text("prefix", found);
    fields.read_text("netmask", found).or(prefix).map(|mask| mask.value)
}

pub(super) fn read_route(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<InterfaceRoute> {
    let name = if fields.field_node("network").is_some() { "network" } else { "destination" };
    let via = field::read_gateway(fields, "gateway", found);
    let mask = read_netmask(fields, found);
    let mut options = Options::new();
    field::set_option(fields, "metric", ("Route", "Metric"), &mut options, found);
    // In a list of items it says that this is a route; in a subnet, what kind of route.
    if fields.read_text("type", found).is_some_and(|kind| kind.value != "route") {
        field::set_option(fields, "type", ("Route", "Type"), &mut options, found);
    }
    let to = checked_text(
        fields,
        name,
        "a network",
        |to| value::parse_destination(to, mask.as_deref(), via),
        found,
    );
    if fields.has_broken_field() {
        return None;
    }
    let Some(to) = to else {
        found.push(Diagnostic::error(
            DiagnosticCode::MissingKey,
            fields.start_mark(),
            "a route needs `destination`",
        ));
        return None;
    };
    Some(InterfaceRoute { options, ..InterfaceRoute::new(to, via, fields.start_mark()) })
}
