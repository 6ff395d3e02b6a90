//! Whether the machine can be reached by what a document describes.
//!
//! Knows when the kernel takes a gateway. Refuses to know formats. Invariants: a gateway outside of an
//! interface's own networks is said to be on its link; a route that cannot be set is left out with a
//! word; a machine to which no document gives an address asks for one.
//!
//! Documentation: systemd.network(5), `GatewayOnLink=`, and ip-route(8), `onlink`.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use super::interface::{InterfaceRoute, NetworkInterface};

/// Providers such as Hetzner, OVH, IBM and Scaleway hand out a single address and a gateway in another
/// network; without the word "on link" the kernel says "Nexthop has invalid gateway" and the machine has
/// no default route. networkd says it by itself, with a warning, where no address is static.
pub(super) fn check_gateways(interfaces: &mut [NetworkInterface], found: &mut Diagnostics) {
    for interface in interfaces {
        let mut routes = std::mem::take(&mut interface.routes);
        // What has no gateway may say that another route's gateway is on the link.
        interface.routes = routes.iter().filter(|route| route.via.is_none()).cloned().collect();
        routes.retain_mut(|route| keep_route(interface, route, found));
        interface.routes = routes;
    }
}

fn keep_route(interface: &NetworkInterface, route: &mut InterfaceRoute, found: &mut Diagnostics) -> bool {
    let Some(via) = route.via else { return true };
    if route.on_link == Some(true) || interface.is_near(via) {
        return true;
    }
    if route.on_link == Some(false) && !interface.may_learn(via) {
        let message = format!(
            "{via} is in no network of `{}` and `on-link` is false, so the kernel will refuse this route",
            interface.id
        );
        let help = "write `on-link: true` if the gateway is on the same link";
        found.push(Diagnostic::warning(DiagnosticCode::BadValue, route.at, message).with_help(help));
    }
    // What the author wrote stays, also if it looks wrong: it may be right by an address that comes later.
    if route.on_link.is_some() {
        return true;
    }
    if interface.has_static(via) || (interface.addresses.is_empty() && interface.may_learn(via)) {
        route.on_link = Some(true);
    } else if !interface.may_learn(via) {
        let family = if via.is_ipv4() { "IPv4" } else { "IPv6" };
        let message =
            format!("`{}` would have no {family} address, so this route by {via} is left out", interface.id);
        let help = "give it an address with its prefix, or DHCP";
        found.push(Diagnostic::warning(DiagnosticCode::BadValue, route.at, message).with_help(help));
        return false;
    }
    true
}

/// Interfaces that a document does not name ask by DHCP; if it gives an address to none of those that
/// it names, they do so, too: a machine without an address is lost.
pub(super) fn keep_reachable(interfaces: &mut [NetworkInterface], found: &mut Diagnostics) {
    if interfaces.iter().any(NetworkInterface::has_address) {
        return;
    }
    let Some(first) = interfaces.first() else { return };
    let message =
        "no interface would have an address by this, so those that are named here ask for one by DHCP";
    let help = "write `addresses`, or `dhcp4: true`";
    found.push(
        Diagnostic::warning(DiagnosticCode::Translated, first.at, message)
            .with_help(help)
            .with_key(first.key.clone()),
    );
    // A member of a bond has no address of its own.
    for interface in interfaces.iter_mut().filter(|one| one.master.is_none() && one.is_outer()) {
        (interface.dhcp4, interface.dhcp6) = (true, true);
    }
}
