//! Debian's `/etc/network/interfaces`, as older configuration drives and `NoCloud` have it.
//!
//! Knows stanzas, VLANs, bonds, bridges and routes in `up` lines. Refuses to run commands: those that are
//! no routes are named. Invariant: a line that cannot be read costs itself only.
//!
//! Documentation: interfaces(5), and ifenslave's, vlan's and bridge-utils' own pages for their options.

mod line;
mod routes;
mod stanza;

use std::collections::BTreeMap;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};

use self::line::{Line, logical_lines};
use self::stanza::Stanza;
use super::field::WANTED_NET;
use super::interface::{Address, InterfaceRoute, InterfaceWiring, LOOP_BACK, NetworkInterface, Options};
use super::setting;
use super::value::{self, BadNet, Net};
use super::version_1::add_servers_everywhere;

/// What may begin such a file; YAML's documents begin otherwise.
// interfaces(5) has no other words at the start of a stanza.
const FIRST_WORDS: [&str; 8] =
    ["allow-auto", "allow-hotplug", "auto", "iface", "mapping", "no-auto-down", "source", "source-directory"];

/// No machine has more to say; the time that a document costs grows with it.
const MOST_LINES: usize = 4096;

/// Whether a text is such a file.
pub(super) fn is_interfaces_file(text: &str) -> bool {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.map(str::split_whitespace).next();
    let Some(mut words) = first else { return false };
    words.next().is_some_and(|word| FIRST_WORDS.contains(&word)) && words.next().is_some()
}

pub(super) fn read(text: &str, part: u16, found: &mut Diagnostics) -> Vec<NetworkInterface> {
    let lines = logical_lines(text, part);
    let words: usize = lines.iter().map(|line| line.more_words().count()).sum();
    // One line may hold a bond of thousands of members, so words count as well.
    if lines.len() > MOST_LINES || words > 2 * MOST_LINES {
        let message = format!("this has more than {MOST_LINES} lines, or too many words in them");
        found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, SourceMark::start_of(part), message));
        return Vec::new();
    }
    let mut file = File::default();
    for line in lines {
        file.add(&line, found);
    }
    file.finish_file(found)
}

/// What is collected while the lines are read.
#[derive(Default)]
struct File {
    stanzas: BTreeMap<String, Stanza>,
    /// In the order in which they are named.
    order: Vec<String>,
    /// The stanza that the lines belong to, with the address that is being described.
    current: Option<(String, Part)>,
    wiring: InterfaceWiring,
}

/// One `iface` line and what is below it.
#[derive(Default)]
struct Part {
    is_static: bool,
    address: Option<Located<String>>,
    mask: Option<String>,
    gateway: Option<Located<String>>,
    metric: Option<String>,
}

impl File {
    fn add(&mut self, line: &Line, found: &mut Diagnostics) {
        match line.name.as_str() {
            "iface" => self.begin_block(line, found),
            // Every interface that a file names is brought up, as the platform wants it.
            "auto" | "allow-auto" | "allow-hotplug" | "no-auto-down" | "no-scripts" => self.end_stanza(found),
            "mapping" | "rename" | "source" | "source-directory" => {
                self.end_stanza(found);
                let message = format!("`{}` refers to files and programs that are not there", line.name);
                found.push(Diagnostic::warning(DiagnosticCode::Refused, line.at, message));
            }
            _ => self.add_option(line, found),
        }
    }

    fn begin_block(&mut self, line: &Line, found: &mut Diagnostics) {
        self.end_stanza(found);
        let mut words = line.more_words();
        let (name, family, method) = (words.next(), words.next(), words.next());
        // `eth0:1` is one more address of `eth0`.
        let name = name.and_then(|name| value::interface_name(name.split(':').next()?));
        let (Some(name), Some(family), Some(method)) = (name, family, method) else {
            let message = "this must be `iface`, a name, `inet` or `inet6`, and a method";
            return found.push(Diagnostic::error(DiagnosticCode::BadValue, line.at, message));
        };
        let stanza = self.stanza_of(&name, line.at);
        let is_v6 = family == "inet6";
        match method {
            "dhcp" if is_v6 => stanza.interface.dhcp6 = true,
            "dhcp" => stanza.interface.dhcp4 = true,
            // The method `auto` of interfaces(5) is SLAAC.
            "auto" if is_v6 => stanza.interface.accept_ra = Some(true),
            "loopback" | "manual" | "static" => {}
            _ => {
                let message = format!("the method `{method}` is not supported here");
                found.push(
                    Diagnostic::error(DiagnosticCode::Refused, line.at, message)
                        .with_help("`static`, `dhcp`, `manual`"),
                );
            }
        }
        self.current = Some((name, Part { is_static: method == "static", ..Part::default() }));
    }

    fn stanza_of(&mut self, name: &str, at: SourceMark) -> &mut Stanza {
        if !self.stanzas.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let new = || {
            let key = format!("iface {name}");
            let interface = NetworkInterface { id: name.to_owned(), at, key, ..NetworkInterface::default() };
            Stanza { interface, ..Stanza::default() }
        };
        self.stanzas.entry(name.to_owned()).or_insert_with(new)
    }

    fn add_option(&mut self, line: &Line, found: &mut Diagnostics) {
        let Some((name, part)) = &mut self.current else {
            let message = "this belongs to no interface: an `iface` line stands above its options";
            return found.push(Diagnostic::warning(DiagnosticCode::UnknownKey, line.at, message));
        };
        let Some(stanza) = self.stanzas.get_mut(name) else { return };
        match line.option_name().as_str() {
            "address" => part.address = Some(line.option_value()),
            "netmask" => part.mask = Some(line.rest.clone()),
            "gateway" => part.gateway = Some(line.option_value()),
            "metric" => part.metric = Some(line.rest.clone()),
            other => stanza.add_option(other, line, &mut self.wiring, found),
        }
    }

    /// Ends a stanza: its address and its gateway are known now.
    fn end_stanza(&mut self, found: &mut Diagnostics) {
        let Some((name, part)) = self.current.take() else { return };
        let Some(stanza) = self.stanzas.get_mut(&name) else { return };
        let interface = &mut stanza.interface;
        if !part.is_static {
            if interface.dhcp4 {
                add_value(&mut interface.dhcp4_options, ("DHCPv4", "RouteMetric"), part.metric.as_deref());
            }
            return;
        }
        interface.addresses.extend(part.parse_net(interface.at, found).map(Address::from_net));
        if let Some(gateway) = &part.gateway {
            let Some(via) = value::parse_ip(&gateway.value) else {
                let message = "`gateway` must be an address";
                return found.push(Diagnostic::error(DiagnosticCode::BadValue, gateway.at, message));
            };
            let mut route = InterfaceRoute::default_by(via, gateway.at);
            add_value(&mut route.options, ("Route", "Metric"), part.metric.as_deref());
            interface.routes.push(route);
        }
    }

    fn finish_file(mut self, found: &mut Diagnostics) -> Vec<NetworkInterface> {
        self.end_stanza(found);
        let (mut interfaces, mut routes) = (Vec::new(), Vec::new());
        let mut everywhere = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.order) {
            let Some(mut stanza) = self.stanzas.remove(&name) else { continue };
            routes.extend(std::mem::take(&mut stanza.routes).into_iter().map(|route| (name.clone(), route)));
            // cloud-init writes name servers there when it makes such a file.
            if name == LOOP_BACK {
                // Here stand the name servers that are for no interface alone.
                everywhere.0.append(&mut stanza.interface.dns);
                everywhere.1.append(&mut stanza.interface.search);
            }
            interfaces.extend(stanza.finish_interface(&mut self.wiring, found));
        }
        add_servers_everywhere(&mut interfaces, &everywhere.0, &everywhere.1);
        for (name, route) in routes {
            place_command(&mut interfaces, &name, route);
        }
        self.wiring.connect_interfaces(interfaces)
    }
}

impl Part {
    fn parse_net(&self, at: SourceMark, found: &mut Diagnostics) -> Option<Net> {
        let Some(address) = &self.address else {
            found.push(Diagnostic::error(
                DiagnosticCode::MissingKey,
                at,
                "a static interface needs `address`",
            ));
            return None;
        };
        match Net::parse(&address.value, self.mask.as_deref()) {
            Ok(net) => Some(net),
            Err(BadNet::NoPrefix(ip)) => {
                let net = Net::guess_prefix(ip);
                let message = format!("this has no `netmask`, so a prefix of {} is assumed", net.prefix);
                found.push(Diagnostic::warning(DiagnosticCode::Translated, address.at, message));
                Some(net)
            }
            Err(BadNet::Nonsense) => {
                let message = format!("`address` must be {WANTED_NET}");
                found.push(Diagnostic::error(DiagnosticCode::BadValue, address.at, message));
                None
            }
        }
    }
}

/// Gives a command's route to the interface that reaches its gateway: that of the stanza, if it does, or
/// else another; if none does, it stays where it was written.
fn place_command(interfaces: &mut [NetworkInterface], name: &str, route: InterfaceRoute) {
    let reaches = |one: &NetworkInterface| one.is_outer() && route.via.is_none_or(|via| one.is_near(via));
    let own = interfaces.iter().position(|one| one.id == name);
    let place =
        own.filter(|own| reaches(&interfaces[*own])).or_else(|| interfaces.iter().position(reaches)).or(own);
    if let Some(place) = place {
        interfaces[place].routes.push(route);
    }
}

fn add_value(options: &mut Options, (section, name): (&str, &'static str), text: Option<&str>) {
    if let Some(value) = text.and_then(|text| setting::find_setting(section, name)?.accepted_value(text)) {
        options.push((name, value));
    }
}
