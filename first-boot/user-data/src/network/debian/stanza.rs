//! All that an interfaces file says of one interface.
//!
//! Knows the options of ifupdown and of the packages around it. Refuses to know which stanza a line stands
//! in. Invariant: what kind of interface it is shows when all lines are read.
//!
//! Documentation: interfaces(5), ifenslave's README.Debian, vlan-interfaces(5), bridge-utils-interfaces(5).

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

use super::line::Line;
use super::routes;
use crate::network::field::MOST_SERVERS;
use crate::network::interface::{
    DeviceKind, InterfaceRoute, InterfaceWiring, LOOP_BACK, NetworkInterface, VirtualKind,
};
use crate::network::value;
use crate::network::version_1::parameters::Parameters;

/// All that is said of one interface.
#[derive(Default)]
pub(super) struct Stanza {
    pub(super) interface: NetworkInterface,
    pub(super) mac: Option<String>,
    pub(super) under: Option<String>,
    pub(super) vlan: Option<u32>,
    pub(super) members: Vec<(VirtualKind, String)>,
    pub(super) kind: Option<VirtualKind>,
    pub(super) parameters: Vec<(Located<String>, Vec<String>)>,
    /// By commands: the kernel looks for the interface that reaches the gateway.
    pub(super) routes: Vec<InterfaceRoute>,
}

impl Stanza {
    pub(super) fn add_option(
        &mut self,
        name: &str,
        line: &Line,
        wiring: &mut InterfaceWiring,
        found: &mut Diagnostics,
    ) {
        let wanted = match name {
            "dns_nameserver" | "dns_nameservers" => {
                let parsed: Option<Vec<_>> =
                    line.more_words().take(MOST_SERVERS).map(value::parse_ip).collect();
                let wanted = parsed.is_none().then_some("addresses");
                extend_new(&mut self.interface.dns, parsed.unwrap_or_default());
                wanted
            }
            "dns_search" | "dns_domain" => {
                let parsed: Option<Vec<_>> =
                    line.more_words().take(MOST_SERVERS).map(value::parse_domain).collect();
                let wanted = parsed.is_none().then_some("domains");
                extend_new(&mut self.interface.search, parsed.unwrap_or_default());
                wanted
            }
            "mtu" => {
                self.interface.mtu = line.rest.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                self.interface.mtu.is_none().then_some("a number from 68 to 65535")
            }
            "hwaddress" => {
                // Before the address the word `ether` may stand.
                self.mac = line.more_words().last().and_then(value::parse_mac);
                self.mac.is_none().then_some("a hardware address")
            }
            "accept_ra" => {
                self.interface.accept_ra = line.rest.parse::<u8>().ok().map(|level| level > 0);
                self.interface.accept_ra.is_none().then_some("0, 1 or 2")
            }
            "vlan_raw_device" => {
                self.under = value::interface_name(&line.rest);
                self.under.is_none().then_some("the name of an interface")
            }
            "vlan_id" => {
                self.vlan = line.rest.parse().ok();
                self.vlan.is_none().then_some("a number below 4095")
            }
            "bond_master" => {
                let master = value::interface_name(&line.rest);
                let wanted = master.is_none().then_some("the name of an interface");
                if let Some(master) = master {
                    wiring
                        .masters
                        .insert(self.interface.id.clone(), (VirtualKind::Bond.unit_section(), master));
                }
                wanted
            }
            "bond_slaves" | "slaves" | "bridge_ports" => {
                let kind = if name == "bridge_ports" { VirtualKind::Bridge } else { VirtualKind::Bond };
                self.kind = Some(kind);
                // `bond-slaves none` is how a bond is written whose members name it by `bond-master`.
                let members =
                    line.more_words().filter(|word| *word != "none").filter_map(value::interface_name);
                self.members.extend(members.map(|member| (kind, member)));
                None
            }
            "up" | "post_up" | "pre_up" => return self.add_command(line, found),
            // What these undo, networkd undoes.
            "down" | "pre_down" | "post_down" | "broadcast" | "network" | "scope" | "pointopoint" => None,
            _ if name.starts_with("bond_") || name.starts_with("bridge_") => {
                let kind = if name.starts_with("bond_") { VirtualKind::Bond } else { VirtualKind::Bridge };
                self.kind = self.kind.or(Some(kind));
                let words = value::split_words(&line.rest).map(str::to_owned).collect();
                self.parameters.push((Located { value: name.to_owned(), at: line.at }, words));
                None
            }
            _ => {
                let message = format!("`{}` is not an option that is known here", line.name);
                return found.push(Diagnostic::warning(DiagnosticCode::UnknownKey, line.at, message));
            }
        };
        if let Some(wanted) = wanted {
            let message = format!("`{}` must be {wanted}", line.name);
            found.push(Diagnostic::error(DiagnosticCode::BadValue, line.at, message));
        }
    }

    fn add_command(&mut self, line: &Line, found: &mut Diagnostics) {
        if let Some(route) = routes::of_command(&line.rest, line.at) {
            return self.routes.push(route);
        }
        let message = "this command is not run: only `route add` and `ip route add` are understood here";
        let help = "write `runcmd` or a unit in user-data";
        found.push(Diagnostic::warning(DiagnosticCode::Refused, line.at, message).with_help(help));
    }

    /// The interface, of the kind that its name and its options say; `None` for the loop-back interface.
    pub(super) fn finish_interface(
        mut self,
        wiring: &mut InterfaceWiring,
        found: &mut Diagnostics,
    ) -> Option<NetworkInterface> {
        let name = self.interface.id.clone();
        if name == LOOP_BACK && self.interface.addresses.iter().all(|address| address.net.ip.is_loopback()) {
            return None;
        }
        // A member of a bond repeats the bond's parameters; only what has members is one.
        let is_member = wiring.masters.contains_key(&name);
        if let Some(kind) = self.kind.filter(|_| !is_member) {
            for (kind, member) in &self.members {
                wiring.masters.insert(member.clone(), (kind.unit_section(), name.clone()));
            }
            let mut parameters = Parameters::of_kind(kind);
            for (name, words) in &self.parameters {
                parameters.add(name, words, name.at, wiring, found);
            }
            let (options, mac) = parameters.sorted_options();
            self.interface.new_mac = self.mac.or(mac);
            self.interface.device = DeviceKind::Made { kind, name, options };
            return Some(self.interface);
        }
        if let Some((under, id)) = self.vlan_of(&name) {
            wiring.vlans.entry(under).or_default().push(name.clone());
            self.interface.new_mac = self.mac;
            let options = vec![("Id", id.to_string())];
            self.interface.device = DeviceKind::Made { kind: VirtualKind::Vlan, name, options };
            return Some(self.interface);
        }
        // OpenStack's template says by the address which card is meant, whatever the kernel calls it.
        self.interface.new_name = self.mac.is_some().then(|| name.clone());
        self.interface.device = DeviceKind::There { name: Some(name), mac: self.mac, driver: None };
        Some(self.interface)
    }

    /// The interface below a VLAN and its number: `eth0.5`, or `vlan5` with `vlan-raw-device`.
    fn vlan_of(&self, name: &str) -> Option<(String, u32)> {
        let behind_dot = name.rsplit_once('.');
        let digits = behind_dot.map_or_else(|| name.trim_start_matches("vlan"), |(_, digits)| digits);
        let id = self.vlan.or_else(|| digits.parse().ok()).filter(|id| *id < 4095)?;
        let under = self.under.clone().or_else(|| behind_dot.map(|(under, _)| under.to_owned()))?;
        Some((under, id))
    }
}

/// Debian's tools repeat what holds for an interface below each of its addresses.
fn extend_new<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
}
