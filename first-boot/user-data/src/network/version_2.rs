//! Version 2, which is netplan's format.
//!
//! Knows Ethernet, bonds, bridges and VLANs. Refuses the other kinds of interface by name.
//! Invariant: an interface whose signs cannot be read is left alone rather than guessed.
//!
//! Documentation: <https://netplan.readthedocs.io/en/stable/netplan-yaml/>, and for what cloud-init takes of
//! it <https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html>.

mod keys;
mod route;

use crate::cloudconfig::fields::{MappingFields, text_of};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::{Node, Value};

use self::keys::{
    ADDRESS_KEYS, BOND_KEYS, BOND_OPTIONS, BRIDGE_KEYS, BRIDGE_OPTIONS, DNS_KEYS, INTERFACE_KEYS, MATCH_KEYS,
    OLDER_BOND_NAMES, OVERRIDE_6_KEYS, OVERRIDE_KEYS, OVERRIDES, ROOT_KEYS,
};
use super::field::{self, WANTED_NET, bad_value, checked_text};
use super::interface::{Address, DeviceKind, InterfaceWiring, NetworkInterface, Options, VirtualKind};
use super::setting;
use super::value::{self, Net};

pub(super) use self::keys::key_tables;

pub(super) fn read(document: &Node, found: &mut Diagnostics) -> Vec<NetworkInterface> {
    let Some(fields) = MappingFields::read_mapping(document, ROOT_KEYS, "network", found) else {
        return Vec::new();
    };
    let mut interfaces = Vec::new();
    let mut wiring = InterfaceWiring::default();
    // From below to above, as netplan writes them. What is on top refers to what is below.
    for kind in ["ethernets", "bonds", "bridges", "vlans"] {
        let Some(Value::Mapping(entries)) = fields.field_node(kind).map(|node| &node.value) else { continue };
        for entry in entries {
            let path = format!("{}.{}", fields.child_path(kind), entry.key);
            let opened = MappingFields::read_mapping(&entry.value, INTERFACE_KEYS, path.clone(), found);
            let Some(mut fields) = opened else { continue };
            if let Some(device) = read_device(kind, &entry.key, &mut fields, &mut wiring, found) {
                let mut interface = NetworkInterface {
                    id: entry.key.clone(),
                    at: entry.key_at,
                    key: path,
                    device,
                    ..NetworkInterface::default()
                };
                read_settings(&mut interface, &mut fields, found);
                interfaces.push(interface);
            }
        }
    }
    wiring.connect_interfaces(interfaces)
}

fn read_device(
    kind: &str,
    id: &str,
    fields: &mut MappingFields<'_>,
    wiring: &mut InterfaceWiring,
    found: &mut Diagnostics,
) -> Option<DeviceKind> {
    if kind == "ethernets" {
        return read_ethernet(id, fields, found);
    }
    let Some(name) = value::interface_name(id) else {
        let message = "this cannot be the name of an interface: at most 15 letters, digits, `-`, `_` and `.`";
        found.push(Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), message));
        return None;
    };
    let (kind, options) = match kind {
        "bonds" => (VirtualKind::Bond, bond_options(fields, wiring, found)),
        "bridges" => (VirtualKind::Bridge, bridge_options(fields, wiring, found)),
        _ => (VirtualKind::Vlan, vlan_options(fields, &name, wiring, found)?),
    };
    for member in fields.read_texts("interfaces", found) {
        wiring.masters.insert(member.value, (kind.unit_section(), name.clone()));
    }
    Some(DeviceKind::Made { kind, name, options })
}

/// An Ethernet interface is found by its signs, or else by its identifier.
fn read_ethernet(id: &str, fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<DeviceKind> {
    let Some(node) = fields.field_node("match") else {
        let name = value::interface_name(id);
        if name.is_none() {
            let message = "this has no `match`, and its key cannot be the name of an interface";
            found.push(Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), message));
        }
        return name.map(|name| DeviceKind::There { name: Some(name), mac: None, driver: None });
    };
    let mut signs = MappingFields::read_mapping(node, MATCH_KEYS, fields.child_path("match"), found)?;
    let mac = checked_text(&mut signs, "macaddress", "a hardware address", value::parse_mac, found);
    let name = checked_text(
        &mut signs,
        "name",
        "the name of an interface, or a pattern",
        value::name_pattern,
        found,
    );
    let driver = driver_names(&mut signs, found);
    if signs.has_broken_field() || (mac.is_none() && name.is_none() && driver.is_none()) {
        if !signs.has_broken_field() {
            let message = "`match` has no sign to find the interface by";
            found.push(Diagnostic::error(DiagnosticCode::MissingKey, node.at, message));
        }
        return None;
    }
    Some(DeviceKind::There { name, mac, driver })
}

/// One driver or several, which networkd takes in one line.
fn driver_names(signs: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let mut drivers = Vec::new();
    for text in signs.read_texts("driver", found) {
        let Some(driver) = value::name_pattern(&text.value) else {
            signs.refuse_field("driver", bad_value(&text, "the name of a driver"), found);
            return None;
        };
        drivers.push(driver);
    }
    (!drivers.is_empty()).then(|| drivers.join(" "))
}

fn vlan_options(
    fields: &mut MappingFields<'_>,
    name: &str,
    wiring: &mut InterfaceWiring,
    found: &mut Diagnostics,
) -> Option<Options> {
    let link = fields.read_text("link", found);
    let id = fields.read_number::<u32>("id", found).filter(|id| id.value < 4095);
    let (Some(link), Some(id)) = (link, id) else {
        let message = "a VLAN needs `link` and `id`, which is below 4095";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message));
        return None;
    };
    wiring.vlans.entry(link.value).or_default().push(name.to_owned());
    Some(vec![("Id", id.value.to_string())])
}

/// The settings of a bond; which member leads is a setting of that member.
fn bond_options(
    fields: &MappingFields<'_>,
    wiring: &mut InterfaceWiring,
    found: &mut Diagnostics,
) -> Options {
    let Some(mut parameters) = read_parameters(fields, BOND_KEYS, found) else { return Options::new() };
    let mut options = Options::new();
    for (name, setting) in BOND_OPTIONS {
        field::set_option(&mut parameters, name, ("Bond", setting), &mut options, found);
    }
    // Behind the present names, so that of both the present one counts.
    for (older, name) in OLDER_BOND_NAMES {
        if let Some((_, setting)) = BOND_OPTIONS.iter().find(|(known, _)| *known == name) {
            field::set_option(&mut parameters, older, ("Bond", setting), &mut options, found);
        }
    }
    if let Some(member) = parameters.read_text("primary", found) {
        wiring.member_port(&member.value).network.push(("PrimarySlave", "yes".to_owned()));
    }
    options
}

/// The settings of a bridge; costs and priorities of ports are settings of the members.
fn bridge_options(
    fields: &MappingFields<'_>,
    wiring: &mut InterfaceWiring,
    found: &mut Diagnostics,
) -> Options {
    let Some(mut parameters) = read_parameters(fields, BRIDGE_KEYS, found) else { return Options::new() };
    let mut options = Options::new();
    for (name, setting) in BRIDGE_OPTIONS {
        field::set_option(&mut parameters, name, ("Bridge", setting), &mut options, found);
    }
    field::set_option(&mut parameters, "aging_time", ("Bridge", "AgeingTimeSec"), &mut options, found);
    for (name, setting) in [("path_cost", "Cost"), ("port_priority", "Priority")] {
        let Some(Value::Mapping(entries)) = parameters.field_node(name).map(|node| &node.value) else {
            continue;
        };
        let Some(setting) = setting::find_setting("Bridge port", setting) else { continue };
        for entry in entries {
            if let Some(value) = field::value_of(setting, &entry.value) {
                wiring.member_port(&entry.key).bridge.push((setting.name, value));
                continue;
            }
            let message = format!("`{name}` must be {}", setting.wanted_words());
            let error = Diagnostic::error(DiagnosticCode::BadValue, entry.value.at, message);
            found.push(error.with_key(parameters.child_path(name)));
        }
    }
    options
}

fn read_parameters<'n>(
    fields: &MappingFields<'n>,
    keys: &'static [crate::cloudconfig::fields::FieldKey],
    found: &mut Diagnostics,
) -> Option<MappingFields<'n>> {
    MappingFields::read_mapping(
        fields.field_node("parameters")?,
        keys,
        fields.child_path("parameters"),
        found,
    )
}

fn read_settings(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    interface.new_name =
        checked_text(fields, "set_name", "the name of an interface", value::interface_name, found);
    interface.new_mac = checked_text(fields, "macaddress", "a hardware address", value::parse_mac, found);
    interface.mtu = field::read_mtu(fields, "mtu", found);
    interface.wake_on_lan = field::read_switch(fields, "wakeonlan", found).unwrap_or(false);
    interface.optional = field::read_switch(fields, "optional", found).unwrap_or(false);
    interface.dhcp4 = field::read_switch(fields, "dhcp4", found).unwrap_or(false);
    interface.dhcp6 = field::read_switch(fields, "dhcp6", found).unwrap_or(false);
    interface.accept_ra = field::read_switch(fields, "accept_ra", found);
    add_addresses(interface, fields, found);
    route::add_routes(interface, fields, found);
    add_nameservers(interface, fields, found);
    interface.dhcp4_options = read_overrides(fields, "dhcp4_overrides", "DHCPv4", OVERRIDE_KEYS, found);
    interface.dhcp6_options = read_overrides(fields, "dhcp6_overrides", "DHCPv6", OVERRIDE_6_KEYS, found);
    add_link_local(interface, fields, found);
    for (name, setting) in [
        ("ipv6_address_generation", "IPv6LinkLocalAddressGenerationMode"),
        ("ipv6_mtu", "IPv6MTUBytes"),
        ("ipv6_privacy", "IPv6PrivacyExtensions"),
        ("ignore_carrier", "ConfigureWithoutCarrier"),
        ("emit_lldp", "EmitLLDP"),
    ] {
        field::set_option(fields, name, ("Network", setting), &mut interface.network_options, found);
    }
    let identifier = ("DHCPv4", "ClientIdentifier");
    field::set_option(fields, "dhcp_identifier", identifier, &mut interface.dhcp4_options, found);
    add_activation(interface, fields, found);
}

/// netplan's `off` is networkd's `always-down`.
fn add_activation(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    let policy = match fields.read_choice("activation_mode", &["manual", "off"], found).map(|word| word.value)
    {
        Some("off") => "always-down",
        Some(word) => word,
        None => return,
    };
    interface.link_options.push(("ActivationPolicy", policy.to_owned()));
}

/// For which families the interface gives itself an address; an empty list means none.
fn add_link_local(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    if fields.field_node("link_local").is_none() {
        return;
    }
    let mut families = (false, false);
    for text in fields.read_texts("link_local", found) {
        match text.value.as_str() {
            "ipv4" => families.0 = true,
            "ipv6" => families.1 = true,
            _ => {
                return found
                    .push(bad_value(&text, "`ipv4` or `ipv6`").with_key(fields.child_path("link_local")));
            }
        }
    }
    let word = match families {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    interface.network_options.push(("LinkLocalAddressing", word.to_owned()));
}

/// netplan lets an address be a mapping of itself to its options.
fn add_addresses(interface: &mut NetworkInterface, fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    let path = fields.child_path("addresses");
    for item in fields.read_list("addresses", found) {
        let (text, at, options) = match &item.value {
            Value::Mapping(entries) if entries.len() == 1 => {
                let entry = &entries[0];
                (entry.key.clone(), entry.key_at, Some(&entry.value))
            }
            _ => (text_of(item).map(|text| text.value).unwrap_or_default(), item.at, None),
        };
        // netplan refuses an address without its prefix, too.
        let Ok(net) = Net::parse(&text, None) else {
            let message = format!("this must be {WANTED_NET}");
            found.push(Diagnostic::error(DiagnosticCode::BadValue, at, message).with_key(path.clone()));
            continue;
        };
        let options = options.map(|node| address_options(node, net, &path, found)).unwrap_or_default();
        interface.addresses.push(Address { net, options });
    }
}

fn address_options(node: &Node, net: Net, path: &str, found: &mut Diagnostics) -> Options {
    let Some(mut fields) = MappingFields::read_mapping(node, ADDRESS_KEYS, format!("{path}[].*"), found)
    else {
        return Options::new();
    };
    let mut options = Options::new();
    if let Some(label) =
        checked_text(&mut fields, "label", "at most 15 letters and digits", value::address_label, found)
    {
        if net.ip.is_ipv4() {
            options.push(("Label", label));
        } else {
            let at = fields.key_at("label").unwrap_or(node.at);
            found.push(Diagnostic::warning(
                DiagnosticCode::NoEffect,
                at,
                "an IPv6 address has no label in the kernel",
            ));
        }
    }
    let lifetime = fields.read_choice("lifetime", &["0", "forever"], found);
    if lifetime.is_some_and(|lifetime| lifetime.value == "0") {
        // networkd takes `0` and `forever`; the second is what it does by itself.
        options.push(("PreferredLifetime", "0".to_owned()));
    }
    options
}

fn add_nameservers(interface: &mut NetworkInterface, fields: &MappingFields<'_>, found: &mut Diagnostics) {
    let Some(node) = fields.field_node("nameservers") else { return };
    let Some(mut servers) =
        MappingFields::read_mapping(node, DNS_KEYS, fields.child_path("nameservers"), found)
    else {
        return;
    };
    (interface.dns, interface.search) = field::read_servers(&mut servers, "addresses", "search", found);
}

fn read_overrides(
    fields: &MappingFields<'_>,
    name: &str,
    section: &str,
    keys: &'static [crate::cloudconfig::fields::FieldKey],
    found: &mut Diagnostics,
) -> Options {
    let Some(node) = fields.field_node(name) else { return Options::new() };
    let Some(mut overrides) = MappingFields::read_mapping(node, keys, fields.child_path(name), found) else {
        return Options::new();
    };
    let mut options = Options::new();
    for (key, setting) in OVERRIDES {
        // What the version of DHCP does not have is in its table without effect.
        if setting::find_setting(section, setting).is_some() {
            field::set_option(&mut overrides, key, (section, setting), &mut options, found);
        }
    }
    options
}
