//! Routes in the commands of an interfaces file.
//!
//! Knows `route add` of net-tools and `ip route add` of iproute2, as far as OpenStack and coreos-cloudinit
//! wrote them. Refuses every other command. Invariant: a word that is not understood makes the whole
//! command one that is not understood.
//!
//! Documentation: route(8), ip-route(8).

use std::net::IpAddr;

use document::source::SourceMark;

use crate::network::interface::{InterfaceRoute, Options};
use crate::network::setting;
use crate::network::value::{self, Net};

/// The route that a command adds; `None` when it does something else.
pub(super) fn of_command(command: &str, at: SourceMark) -> Option<InterfaceRoute> {
    // `|| true` is what OpenStack's template ends with.
    let command = command.split("||").next()?;
    let mut words: Vec<&str> = command.split_whitespace().collect();
    // Templates write the program with or without its path.
    let program = words.first()?.rsplit('/').next()?;
    let dialect = match program {
        "route" => Dialect::NetTools,
        "ip" => Dialect::IpRoute,
        _ => return None,
    };
    // The family shows in the addresses, so that it need not be said.
    words.remove(0);
    while let Some(place) = words.iter().position(|word| FAMILY_OPTIONS.contains(word)) {
        words.drain(place..(place + 2).min(words.len()));
    }
    words.retain(|word| !["-4", "-6"].contains(word));
    let verbs: &[&[&str]] = match dialect {
        Dialect::NetTools => &[&["add"]],
        Dialect::IpRoute => &[&["route", "add"], &["route", "append"], &["route", "replace"]],
    };
    let verb = verbs.iter().find(|verb| words.starts_with(verb))?;
    read_words(words.split_off(verb.len()), dialect, at)
}

/// What has the name of a family behind it.
const FAMILY_OPTIONS: [&str; 3] = ["-A", "-f", "-family"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    IpRoute,
    NetTools,
}

fn read_words(words: Vec<&str>, dialect: Dialect, at: SourceMark) -> Option<InterfaceRoute> {
    let (mut to, mut mask, mut via) = (None, None, None);
    let mut options = Options::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word {
            "-net" | "-host" if dialect == Dialect::NetTools => to = Some(words.next()?),
            "netmask" if dialect == Dialect::NetTools => mask = Some(words.next()?),
            "gw" | "via" => via = Some(words.next()?.parse::<IpAddr>().ok()?),
            // The interface is the one of the stanza; a variable stands for it as well.
            "dev" => drop(words.next()?),
            "metric" => {
                options.push((
                    "Metric",
                    setting::find_setting("Route", "Metric")?.accepted_value(words.next()?)?,
                ));
            }
            "table" => {
                options
                    .push(("Table", setting::find_setting("Route", "Table")?.accepted_value(words.next()?)?));
            }
            "default" => to = Some("default"),
            word if to.is_none() => to = Some(word),
            _ => return None,
        }
    }
    let to: Net = value::parse_destination(to?, mask, via)?;
    Some(InterfaceRoute { options, ..InterfaceRoute::new(to, via, at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(command: &str) -> Option<String> {
        let route = of_command(command, SourceMark::start_of(0))?;
        Some(format!("{} by {:?} {:?}", route.to, route.via, route.options))
    }

    #[test]
    fn both_programs_commands_are_routes() {
        for (command, expected) in [
            ("route add -net 10.0.0.0 netmask 255.0.0.0 gw 192.0.2.1", "10.0.0.0/8 by Some(192.0.2.1) []"),
            ("route add -net 10.0.0.0/8 gw 192.0.2.1 || true", "10.0.0.0/8 by Some(192.0.2.1) []"),
            ("route add -host 10.0.0.5 gw 192.0.2.1", "10.0.0.5/32 by Some(192.0.2.1) []"),
            ("route add default gw 192.0.2.1 metric 5", "0.0.0.0/0 by Some(192.0.2.1) [(\"Metric\", \"5\")]"),
            ("/sbin/ip route add 10.0.0.0/8 via 192.0.2.1 dev eth0", "10.0.0.0/8 by Some(192.0.2.1) []"),
            ("ip -6 route add default via fe80::1", "::/0 by Some(fe80::1) []"),
            ("route -A inet6 add 2001:db8::/32 gw fe80::1", "2001:db8::/32 by Some(fe80::1) []"),
            ("route add -A inet6 default gw 2001:db8::1 || true", "::/0 by Some(2001:db8::1) []"),
            ("ip -family inet6 route add default via 2001:db8::1", "::/0 by Some(2001:db8::1) []"),
            ("route add gw 192.0.2.1 -net 10.0.0.0 netmask 255.0.0.0", "10.0.0.0/8 by Some(192.0.2.1) []"),
        ] {
            assert_eq!(route(command).as_deref(), Some(expected), "{command}");
        }
    }

    #[test]
    fn other_commands_are_not() {
        for command in [
            "iptables -F",
            "route del default",
            "route add",
            "route add -net",
            "route add gw",
            "route add netmask",
            "ip route add",
            "ip route add 10.0.0.0/8 nonsense x",
            "1 2",
            "",
        ] {
            assert_eq!(route(command), None, "{command}");
        }
    }
}
