//! Debian's `/etc/network/interfaces`, as older configuration drives and `NoCloud` have it.
//!
//! Knows stanzas, VLANs, bonds, bridges and routes in `up` lines. Refuses to run commands: those that are
//! no routes are named. Invariant: a line that can't be read costs itself only.
//!
//! Documentation: interfaces(5), and ifenslave's, vlan's and bridge-utils' own pages for their options.

mod line;
mod routes;

use std::collections::BTreeMap;

use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::{At, Mark};

use self::line::{Line, logical_lines};
use super::field::{MOST_SERVERS, WANTED_NET};
use super::interface::{Address, Device, Interface, Kind, LOOP_BACK, Options, Route, Wiring};
use super::setting;
use super::value::{self, BadNet, Net};
use super::version_1::add_servers_everywhere;
use super::version_1::parameters::Parameters;

/// What may begin such a file; YAML's documents begin otherwise.
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

pub(super) fn read(text: &str, part: u16, found: &mut Diagnostics) -> Vec<Interface> {
    let lines = logical_lines(text, part);
    let words: usize = lines.iter().map(|line| line.words().count()).sum();
    if lines.len() > MOST_LINES || words > 2 * MOST_LINES {
        let message = format!("this has more than {MOST_LINES} lines, or too many words in them");
        found.push(Diagnostic::error(Code::LimitExceeded, Mark::start_of(part), message));
        return Vec::new();
    }
    let mut file = File::default();
    for line in lines {
        file.add(&line, found);
    }
    file.finish(found)
}

/// What is collected while the lines are read.
#[derive(Default)]
struct File {
    stanzas: BTreeMap<String, Stanza>,
    /// In the order in which they are named.
    order: Vec<String>,
    /// The stanza that the lines belong to, with the address that is being described.
    current: Option<(String, Part)>,
    wiring: Wiring,
}

/// All that is said of one interface.
#[derive(Default)]
struct Stanza {
    interface: Interface,
    mac: Option<String>,
    under: Option<String>,
    vlan: Option<u32>,
    members: Vec<(Kind, String)>,
    kind: Option<Kind>,
    parameters: Vec<(At<String>, Vec<String>)>,
    /// By commands: the kernel looks for the interface that reaches the gateway.
    routes: Vec<Route>,
}

/// One `iface` line and what is below it.
#[derive(Default)]
struct Part {
    is_static: bool,
    address: Option<At<String>>,
    mask: Option<String>,
    gateway: Option<At<String>>,
    metric: Option<String>,
}

impl File {
    fn add(&mut self, line: &Line, found: &mut Diagnostics) {
        match line.name.as_str() {
            "iface" => self.begin(line, found),
            // Every interface that a file names is brought up, as the platform wants it.
            "auto" | "allow-auto" | "allow-hotplug" | "no-auto-down" | "no-scripts" => self.end(found),
            "mapping" | "rename" | "source" | "source-directory" => {
                self.end(found);
                let message = format!("`{}` refers to files and programs that are not there", line.name);
                found.push(Diagnostic::warning(Code::Refused, line.at, message));
            }
            _ => self.add_option(line, found),
        }
    }

    fn begin(&mut self, line: &Line, found: &mut Diagnostics) {
        self.end(found);
        let mut words = line.words();
        let (name, family, method) = (words.next(), words.next(), words.next());
        // `eth0:1` is one more address of `eth0`.
        let name = name.and_then(|name| value::interface_name(name.split(':').next()?));
        let (Some(name), Some(family), Some(method)) = (name, family, method) else {
            let message = "this must be `iface`, a name, `inet` or `inet6`, and a method";
            return found.push(Diagnostic::error(Code::BadValue, line.at, message));
        };
        let stanza = self.stanza(&name, line.at);
        let is_v6 = family == "inet6";
        match method {
            "dhcp" if is_v6 => stanza.interface.dhcp6 = true,
            "dhcp" => stanza.interface.dhcp4 = true,
            "auto" if is_v6 => stanza.interface.accept_ra = Some(true),
            "loopback" | "manual" | "static" => {}
            _ => {
                let message = format!("the method `{method}` is not supported here");
                found.push(
                    Diagnostic::error(Code::Refused, line.at, message).help("`static`, `dhcp`, `manual`"),
                );
            }
        }
        self.current = Some((name, Part { is_static: method == "static", ..Part::default() }));
    }

    fn stanza(&mut self, name: &str, at: Mark) -> &mut Stanza {
        if !self.stanzas.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let new = || {
            let key = format!("iface {name}");
            let interface = Interface { id: name.to_owned(), at, key, ..Interface::default() };
            Stanza { interface, ..Stanza::default() }
        };
        self.stanzas.entry(name.to_owned()).or_insert_with(new)
    }

    fn add_option(&mut self, line: &Line, found: &mut Diagnostics) {
        let Some((name, part)) = &mut self.current else {
            let message = "this belongs to no interface: an `iface` line stands above its options";
            return found.push(Diagnostic::warning(Code::UnknownKey, line.at, message));
        };
        let Some(stanza) = self.stanzas.get_mut(name) else { return };
        match line.spelled().as_str() {
            "address" => part.address = Some(line.value()),
            "netmask" => part.mask = Some(line.rest.clone()),
            "gateway" => part.gateway = Some(line.value()),
            "metric" => part.metric = Some(line.rest.clone()),
            other => stanza.add_option(other, line, &mut self.wiring, found),
        }
    }

    /// Ends a stanza: its address and its gateway are known now.
    fn end(&mut self, found: &mut Diagnostics) {
        let Some((name, part)) = self.current.take() else { return };
        let Some(stanza) = self.stanzas.get_mut(&name) else { return };
        let interface = &mut stanza.interface;
        if !part.is_static {
            if interface.dhcp4 {
                add_value(&mut interface.dhcp4_options, ("DHCPv4", "RouteMetric"), part.metric.as_deref());
            }
            return;
        }
        interface.addresses.extend(part.net(interface.at, found).map(Address::plain));
        if let Some(gateway) = &part.gateway {
            let Some(via) = value::ip(&gateway.value) else {
                let message = "`gateway` must be an address";
                return found.push(Diagnostic::error(Code::BadValue, gateway.at, message));
            };
            let mut route = Route::default_by(via, gateway.at);
            add_value(&mut route.options, ("Route", "Metric"), part.metric.as_deref());
            interface.routes.push(route);
        }
    }

    fn finish(mut self, found: &mut Diagnostics) -> Vec<Interface> {
        self.end(found);
        let (mut interfaces, mut routes) = (Vec::new(), Vec::new());
        let mut everywhere = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.order) {
            let Some(mut stanza) = self.stanzas.remove(&name) else { continue };
            routes.extend(std::mem::take(&mut stanza.routes).into_iter().map(|route| (name.clone(), route)));
            if name == LOOP_BACK {
                // Here stand the name servers that are for no interface alone.
                everywhere.0.append(&mut stanza.interface.dns);
                everywhere.1.append(&mut stanza.interface.search);
            }
            interfaces.extend(stanza.finish(&mut self.wiring, found));
        }
        add_servers_everywhere(&mut interfaces, &everywhere.0, &everywhere.1);
        for (name, route) in routes {
            place_command(&mut interfaces, &name, route);
        }
        self.wiring.connect(interfaces)
    }
}

impl Part {
    fn net(&self, at: Mark, found: &mut Diagnostics) -> Option<Net> {
        let Some(address) = &self.address else {
            found.push(Diagnostic::error(Code::MissingKey, at, "a static interface needs `address`"));
            return None;
        };
        match Net::parse(&address.value, self.mask.as_deref()) {
            Ok(net) => Some(net),
            Err(BadNet::NoPrefix(ip)) => {
                let net = Net::guess(ip);
                let message = format!("this has no `netmask`, so a prefix of {} is assumed", net.prefix);
                found.push(Diagnostic::warning(Code::Translated, address.at, message));
                Some(net)
            }
            Err(BadNet::Nonsense) => {
                let message = format!("`address` must be {WANTED_NET}");
                found.push(Diagnostic::error(Code::BadValue, address.at, message));
                None
            }
        }
    }
}

impl Stanza {
    fn add_option(&mut self, name: &str, line: &Line, wiring: &mut Wiring, found: &mut Diagnostics) {
        let wanted = match name {
            "dns_nameserver" | "dns_nameservers" => {
                let parsed: Option<Vec<_>> = line.words().take(MOST_SERVERS).map(value::ip).collect();
                let wanted = parsed.is_none().then_some("addresses");
                extend_new(&mut self.interface.dns, parsed.unwrap_or_default());
                wanted
            }
            "dns_search" | "dns_domain" => {
                let parsed: Option<Vec<_>> = line.words().take(MOST_SERVERS).map(value::domain).collect();
                let wanted = parsed.is_none().then_some("domains");
                extend_new(&mut self.interface.search, parsed.unwrap_or_default());
                wanted
            }
            "mtu" => {
                self.interface.mtu = line.rest.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                self.interface.mtu.is_none().then_some("a number from 68 to 65535")
            }
            "hwaddress" => {
                self.mac = line.words().last().and_then(value::mac);
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
                    wiring.masters.insert(self.interface.id.clone(), (Kind::Bond.section(), master));
                }
                wanted
            }
            "bond_slaves" | "slaves" | "bridge_ports" => {
                let kind = if name == "bridge_ports" { Kind::Bridge } else { Kind::Bond };
                self.kind = Some(kind);
                let members = line.words().filter(|word| *word != "none").filter_map(value::interface_name);
                self.members.extend(members.map(|member| (kind, member)));
                None
            }
            "up" | "post_up" | "pre_up" => return self.add_command(line, found),
            // What these undo, networkd undoes.
            "down" | "pre_down" | "post_down" | "broadcast" | "network" | "scope" | "pointopoint" => None,
            _ if name.starts_with("bond_") || name.starts_with("bridge_") => {
                let kind = if name.starts_with("bond_") { Kind::Bond } else { Kind::Bridge };
                self.kind = self.kind.or(Some(kind));
                let words = value::words(&line.rest).map(str::to_owned).collect();
                self.parameters.push((At { value: name.to_owned(), at: line.at }, words));
                None
            }
            _ => {
                let message = format!("`{}` is not an option that is known here", line.name);
                return found.push(Diagnostic::warning(Code::UnknownKey, line.at, message));
            }
        };
        if let Some(wanted) = wanted {
            let message = format!("`{}` must be {wanted}", line.name);
            found.push(Diagnostic::error(Code::BadValue, line.at, message));
        }
    }

    fn add_command(&mut self, line: &Line, found: &mut Diagnostics) {
        if let Some(route) = routes::of_command(&line.rest, line.at) {
            return self.routes.push(route);
        }
        let message = "this command is not run: only `route add` and `ip route add` are understood here";
        let help = "write `runcmd` or a unit in user-data";
        found.push(Diagnostic::warning(Code::Refused, line.at, message).help(help));
    }

    /// The interface, of the kind that its name and its options say; `None` for the loop-back interface.
    fn finish(mut self, wiring: &mut Wiring, found: &mut Diagnostics) -> Option<Interface> {
        let name = self.interface.id.clone();
        if name == LOOP_BACK && self.interface.addresses.iter().all(|address| address.net.ip.is_loopback()) {
            return None;
        }
        // A member of a bond repeats the bond's parameters; only what has members is one.
        let is_member = wiring.masters.contains_key(&name);
        if let Some(kind) = self.kind.filter(|_| !is_member) {
            for (kind, member) in &self.members {
                wiring.masters.insert(member.clone(), (kind.section(), name.clone()));
            }
            let mut parameters = Parameters::of(kind);
            for (name, words) in &self.parameters {
                parameters.add(name, words, name.at, wiring, found);
            }
            let (options, mac) = parameters.finish();
            self.interface.new_mac = self.mac.or(mac);
            self.interface.device = Device::Made { kind, name, options };
            return Some(self.interface);
        }
        if let Some((under, id)) = self.vlan_of(&name) {
            wiring.vlans.entry(under).or_default().push(name.clone());
            self.interface.new_mac = self.mac;
            let options = vec![("Id", id.to_string())];
            self.interface.device = Device::Made { kind: Kind::Vlan, name, options };
            return Some(self.interface);
        }
        // OpenStack's template says by the address which card is meant, whatever the kernel calls it.
        self.interface.new_name = self.mac.is_some().then(|| name.clone());
        self.interface.device = Device::There { name: Some(name), mac: self.mac, driver: None };
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

/// Gives a command's route to the interface that reaches its gateway: that of the stanza, if it does, or
/// else another; if none does, it stays where it was written.
fn place_command(interfaces: &mut [Interface], name: &str, route: Route) {
    let reaches = |one: &Interface| one.is_outer() && route.via.is_none_or(|via| one.is_near(via));
    let own = interfaces.iter().position(|one| one.id == name);
    let place =
        own.filter(|own| reaches(&interfaces[*own])).or_else(|| interfaces.iter().position(reaches)).or(own);
    if let Some(place) = place {
        interfaces[place].routes.push(route);
    }
}

fn add_value(options: &mut Options, (section, name): (&str, &'static str), text: Option<&str>) {
    if let Some(value) = text.and_then(|text| setting::find(section, name)?.value(text)) {
        options.push((name, value));
    }
}
