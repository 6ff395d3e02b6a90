//! Version 2's routes, routing policies and gateways.
//!
//! Knows netplan's rules of what a route needs. Refuses to judge whether a gateway answers. Invariant: a
//! route of which anything was refused is not written at all, since the rest of it may lead elsewhere.
//!
//! Documentation: <https://netplan.readthedocs.io/en/stable/netplan-yaml/>, "Routing".

use crate::cloudconfig::fields::MappingFields;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use super::keys::{ROUTE_KEYS, ROUTE_OPTIONS, RULE_KEYS, RULE_OPTIONS};
use crate::network::field::{self, checked_text};
use crate::network::interface::{InterfaceRoute, NetworkInterface, Options};
use crate::network::value;

/// Types of routes that lead nowhere, so that they have no gateway.
const DEAD_ENDS: [&str; 4] = ["blackhole", "prohibit", "throw", "unreachable"];

pub(super) fn add_routes(
    interface: &mut NetworkInterface,
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) {
    // netplan has deprecated both for `routes`, and most documents still have them.
    for name in ["gateway4", "gateway6"] {
        if let Some(via) = field::read_gateway(fields, name, found) {
            let at = fields.field_node(name).map_or(interface.at, |node| node.at);
            interface.routes.push(InterfaceRoute::default_by(via, at));
        }
    }
    let path = fields.child_path("routes");
    for (index, item) in fields.read_list("routes", found).iter().enumerate() {
        if let Some(mut route) =
            MappingFields::read_mapping(item, ROUTE_KEYS, format!("{path}[{index}]"), found)
        {
            interface.routes.extend(read_route(&mut route, found));
        }
    }
    let path = fields.child_path("routing_policy");
    for (index, item) in fields.read_list("routing_policy", found).iter().enumerate() {
        if let Some(mut rule) =
            MappingFields::read_mapping(item, RULE_KEYS, format!("{path}[{index}]"), found)
        {
            interface.rules.extend(read_rule(&mut rule, found));
        }
    }
}

fn read_route(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<InterfaceRoute> {
    let via = field::read_gateway(fields, "via", found);
    let on_link = field::read_switch(fields, "on_link", found);
    let mut options = Options::new();
    for (name, setting) in ROUTE_OPTIONS {
        field::set_option(fields, name, ("Route", setting), &mut options, found);
    }
    let wanted = "a network or `default`";
    let to = checked_text(fields, "to", wanted, |to| value::parse_destination(to, None, via), found);
    if fields.has_broken_field() {
        return None;
    }
    let Some(to) = to else {
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), "a route needs `to`"));
        return None;
    };
    let kind = options.iter().find(|(name, _)| *name == "Type").map(|(_, kind)| kind.as_str());
    let is_dead_end = kind.is_some_and(|kind| DEAD_ENDS.contains(&kind));
    let source = options.iter().find(|(name, _)| *name == "PreferredSource");
    let source = source.and_then(|(_, source)| value::parse_ip(source));
    let wrong = if source.is_some_and(|source| source.is_ipv4() != to.ip.is_ipv4()) {
        Some("`from` must be an address of the destination's family")
    } else if is_dead_end && via.is_some() {
        Some("a route that leads nowhere has no `via`")
    // The other way round is RFC 5549, which the kernel and networkd know.
    } else if via.is_some_and(|via| via.is_ipv4() && !to.ip.is_ipv4()) {
        Some("an IPv6 network has no IPv4 gateway")
    } else {
        None
    };
    if let Some(message) = wrong {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), message).with_key(fields.path()),
        );
        return None;
    }
    Some(InterfaceRoute { on_link, options, ..InterfaceRoute::new(to, via, fields.start_mark()) })
}

fn read_rule(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Options> {
    let mut rule = Options::new();
    for (name, setting) in [("from", "From"), ("to", "To")] {
        let check = |text: &str| value::parse_destination(text, None, None);
        if let Some(net) = checked_text(fields, name, "a network", check, found) {
            rule.push((setting, net.to_string()));
        }
    }
    for (name, setting) in RULE_OPTIONS {
        field::set_option(fields, name, ("RoutingPolicyRule", setting), &mut rule, found);
    }
    if fields.has_broken_field() {
        return None;
    }
    if rule.is_empty() {
        found.push(Diagnostic::error(
            DiagnosticCode::MissingKey,
            fields.start_mark(),
            "a routing policy needs `from` or `to`",
        ));
        return None;
    }
    Some(rule)
}
