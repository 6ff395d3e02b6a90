//! Units of networkd and udev for one interface.
//!
//! Knows their sections and settings. Refuses to know formats. Invariant: the order of settings is
//! fixed, so the same description makes the same bytes.
//!
//! Documentation: systemd.network(5), systemd.netdev(5), systemd.link(5).

use std::fmt::Write;

use super::interface::{DeviceKind, InterfaceRoute, NetworkInterface};

/// Names and contents of an interface's units; `stem` is what their names begin with.
pub(super) fn render_units(interface: &NetworkInterface, stem: &str) -> Vec<(String, String)> {
    let mut units = Vec::new();
    if let DeviceKind::Made { kind, name, options } = &interface.device {
        let mut unit = UnitText::default();
        unit.begin_section("NetDev");
        unit.set_value("Name", name);
        unit.set_value("Kind", kind.kind_word());
        unit.set_some("MACAddress", interface.new_mac.as_ref());
        unit.set_some("MTUBytes", interface.mtu);
        unit.set_options(kind.unit_section(), options);
        units.push((format!("{stem}.netdev"), unit.text));
    }
    if let Some(unit) = link_unit(interface) {
        units.push((format!("{stem}.link"), unit.text));
    }
    units.push((format!("{stem}.network"), network_unit(interface).text));
    units
}

/// What udev does: a new name, waking up.
fn link_unit(interface: &NetworkInterface) -> Option<UnitText> {
    let DeviceKind::There { name, mac, driver } = &interface.device else { return None };
    if interface.new_name.is_none() && !interface.wake_on_lan {
        return None;
    }
    let mut unit = UnitText::default();
    unit.begin_section("Match");
    // udev names cards before networkd may change their address.
    unit.set_some("PermanentMACAddress", mac.as_ref());
    unit.set_some("Driver", driver.as_ref());
    if mac.is_none() {
        unit.set_some("OriginalName", name.as_ref());
    }
    unit.begin_section("Link");
    unit.set_some("Name", interface.new_name.as_ref());
    if interface.wake_on_lan {
        // netplan's `wakeonlan: true` writes this word.
        unit.set_value("WakeOnLan", "magic");
    }
    Some(unit)
}

fn network_unit(interface: &NetworkInterface) -> UnitText {
    let mut unit = UnitText::default();
    unit.begin_section("Match");
    match &interface.device {
        DeviceKind::Made { name, .. } => unit.set_value("Name", name),
        DeviceKind::There { name, mac, driver } => {
            // What joins a bond takes over the bond's address, so it is known by its own only.
            let sign = if interface.master.is_some() { "PermanentMACAddress" } else { "MACAddress" };
            unit.set_some(sign, mac.as_ref());
            unit.set_some("Driver", driver.as_ref());
            let by_name = mac.is_none() || name.as_ref().is_some_and(|name| name.contains(['*', '?', '[']));
            if let Some(name) = name.as_ref().filter(|_| by_name) {
                // networkd may read the unit before or behind udev's renaming.
                let renamed = interface.new_name.iter().map(|new| format!(" {new}"));
                unit.set_value("Name", &format!("{name}{}", renamed.collect::<String>()));
            }
            if mac.is_some() && interface.master.is_none() {
                // VLANs and bridges on it have the same address.
                unit.set_value("Kind", "!bond bridge ipvlan macvlan vlan");
            }
        }
    }
    link_section(interface, &mut unit);
    network_section(interface, &mut unit);
    for address in interface.addresses.iter().filter(|address| !address.options.is_empty()) {
        unit.begin_section("Address");
        unit.set_value("Address", &address.net.to_string());
        unit.write_settings(&address.options);
    }
    unit.set_options("Bridge", &interface.port.bridge);
    unit.set_options("DHCPv4", &interface.dhcp4_options);
    unit.set_options("DHCPv6", &interface.dhcp6_options);
    for rule in &interface.rules {
        unit.set_options("RoutingPolicyRule", rule);
    }
    for route in &interface.routes {
        route_section(route, &mut unit);
    }
    unit
}

fn link_section(interface: &NetworkInterface, unit: &mut UnitText) {
    // Of what networkd makes, both stand in the .netdev file already.
    let made = matches!(interface.device, DeviceKind::Made { .. });
    let mac = interface.new_mac.as_ref().filter(|_| !made);
    let mtu = interface.mtu.filter(|_| !made);
    if mac.is_none() && mtu.is_none() && !interface.optional && interface.link_options.is_empty() {
        return;
    }
    unit.begin_section("Link");
    unit.set_some("MACAddress", mac);
    unit.set_some("MTUBytes", mtu);
    if interface.optional {
        unit.set_value("RequiredForOnline", "no");
    }
    unit.write_settings(&interface.link_options);
}

fn network_section(interface: &NetworkInterface, unit: &mut UnitText) {
    unit.begin_section("Network");
    let dhcp = match (interface.dhcp4, interface.dhcp6) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    unit.set_value("DHCP", dhcp);
    if let Some((setting, master)) = &interface.master {
        unit.set_value(setting, master);
        unit.write_settings(&interface.port.network);
    }
    let links_local = interface.network_options.iter().any(|(name, _)| *name == "LinkLocalAddressing");
    if interface.master.is_some() && !links_local {
        // A member of a bond or bridge has no address of its own, not even a link-local one.
        unit.set_value("LinkLocalAddressing", "no");
    }
    unit.write_settings(&interface.network_options);
    if let Some(accept) = interface.accept_ra {
        unit.set_value("IPv6AcceptRA", if accept { "yes" } else { "no" });
    }
    for address in interface.addresses.iter().filter(|address| address.options.is_empty()) {
        unit.set_value("Address", &address.net.to_string());
    }
    let own_names = interface.master.is_none();
    for server in interface.dns.iter().filter(|_| own_names) {
        unit.set_value("DNS", &server.to_string());
    }
    if !interface.search.is_empty() && own_names {
        unit.set_value("Domains", &interface.search.join(" "));
    }
    for vlan in &interface.vlans {
        unit.set_value("VLAN", vlan);
    }
}

fn route_section(route: &InterfaceRoute, unit: &mut UnitText) {
    unit.begin_section("Route");
    unit.set_value("Destination", &route.to.to_string());
    unit.set_some("Gateway", route.via);
    if route.on_link == Some(true) && route.via.is_some() {
        unit.set_value("GatewayOnLink", "yes");
    }
    unit.write_settings(&route.options);
}

/// A unit that is being written.
#[derive(Default)]
struct UnitText {
    text: String,
}

impl UnitText {
    fn begin_section(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{gap}[{name}]");
    }

    fn set_value(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "{name}={value}");
    }

    fn set_some(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            let _ = writeln!(self.text, "{name}={value}");
        }
    }

    fn set_options(&mut self, section: &str, options: &[(&'static str, String)]) {
        if options.is_empty() {
            return;
        }
        self.begin_section(section);
        self.write_settings(options);
    }

    fn write_settings(&mut self, options: &[(&'static str, String)]) {
        for (name, value) in options {
            self.set_value(name, value);
        }
    }
}
