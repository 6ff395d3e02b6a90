//! The settings of networkd whose values this translates, and the values that each of them has.
//!
//! Knows networkd's words, the numbers by which the kernel counts some of them, and ranges. Refuses to
//! know what a format calls a setting. Invariant: `tests/networkd.rs` asks a real networkd for every
//! word and for both ends of every range, so nothing stands here that it would ignore.
//!
//! Documentation: systemd.netdev(5), systemd.network(5), and the kernel's `bonding.rst` for the numbers.

use std::net::IpAddr;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// One address.
    Address,
    /// Addresses, with white space or commas between them.
    Addresses,
    /// Yes or no, in whatever word or number.
    Flag,
    /// The name of a host.
    Host,
    /// A whole number, both ends included.
    Number(u32, u32),
    /// A span of time; a bare number has this unit, since networkd reads every bare number as seconds.
    // The kernel counts milliseconds for most of a bond's times, and networkd seconds.
    Span(&'static str),
    /// Yes, no or one word more.
    FlagOr(&'static str),
    /// One of these.
    Words(&'static [&'static str]),
    /// One of these, or its number: they stand in the kernel's order. ifupdown, OpenStack and the
    /// kernel's own files use the numbers, networkd takes none of them.
    Counted(&'static [&'static str]),
}

/// A setting of one section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) takes: Takes,
}

const fn setting(section: &'static str, name: &'static str, takes: Takes) -> Setting {
    Setting { section, name, takes }
}

/// Every setting whose value a document may choose.
pub(super) const SETTINGS: &[Setting] = &[
    setting("Bond", "ARPAllTargets", Takes::Counted(&["any", "all"])),
    setting("Bond", "ARPIPTargets", Takes::Addresses),
    setting("Bond", "ARPIntervalSec", Takes::Span("ms")),
    setting("Bond", "ARPValidate", Takes::Counted(&["none", "active", "backup", "all"])),
    setting("Bond", "AdActorSystemPriority", Takes::Number(1, 65535)),
    setting("Bond", "AdSelect", Takes::Counted(&["stable", "bandwidth", "count"])),
    setting("Bond", "AdUserPortKey", Takes::Number(0, 1023)),
    setting("Bond", "AllSlavesActive", Takes::Flag),
    setting("Bond", "DownDelaySec", Takes::Span("ms")),
    setting("Bond", "DynamicTransmitLoadBalancing", Takes::Flag),
    setting("Bond", "FailOverMACPolicy", Takes::Counted(&["none", "active", "follow"])),
    setting("Bond", "GratuitousARP", Takes::Number(0, 255)),
    setting("Bond", "LACPTransmitRate", Takes::Counted(&["slow", "fast"])),
    setting("Bond", "LearnPacketIntervalSec", Takes::Span("s")),
    setting("Bond", "MIIMonitorSec", Takes::Span("ms")),
    setting("Bond", "MinLinks", Takes::Number(0, 65535)),
    setting(
        "Bond",
        "Mode",
        Takes::Counted(&[
            "balance-rr",
            "active-backup",
            "balance-xor",
            "broadcast",
            "802.3ad",
            "balance-tlb",
            "balance-alb",
        ]),
    ),
    setting("Bond", "PacketsPerSlave", Takes::Number(0, 65535)),
    setting("Bond", "PrimaryReselectPolicy", Takes::Counted(&["always", "better", "failure"])),
    setting("Bond", "ResendIGMP", Takes::Number(0, 255)),
    setting(
        "Bond",
        "TransmitHashPolicy",
        Takes::Counted(&["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4"]),
    ),
    setting("Bond", "UpDelaySec", Takes::Span("ms")),
    setting("Bridge", "AgeingTimeSec", Takes::Span("s")),
    setting("Bridge", "ForwardDelaySec", Takes::Span("s")),
    setting("Bridge", "HelloTimeSec", Takes::Span("s")),
    setting("Bridge", "MaxAgeSec", Takes::Span("s")),
    setting("Bridge", "Priority", Takes::Number(0, 65535)),
    setting("Bridge", "STP", Takes::Flag),
    setting("Bridge port", "Cost", Takes::Number(1, 65535)),
    setting("Bridge port", "Priority", Takes::Number(0, 63)),
    setting("DHCPv4", "ClientIdentifier", Takes::Words(&["duid", "mac"])),
    setting("DHCPv4", "Hostname", Takes::Host),
    setting("DHCPv4", "RouteMetric", Takes::Number(0, u32::MAX)),
    setting("DHCPv4", "SendHostname", Takes::Flag),
    setting("DHCPv4", "UseDNS", Takes::Flag),
    setting("DHCPv4", "UseDomains", Takes::FlagOr("route")),
    setting("DHCPv4", "UseHostname", Takes::Flag),
    setting("DHCPv4", "UseMTU", Takes::Flag),
    setting("DHCPv4", "UseNTP", Takes::Flag),
    setting("DHCPv4", "UseRoutes", Takes::Flag),
    setting("DHCPv6", "UseDNS", Takes::Flag),
    setting("DHCPv6", "UseDomains", Takes::FlagOr("route")),
    setting("DHCPv6", "UseHostname", Takes::Flag),
    setting("DHCPv6", "UseNTP", Takes::Flag),
    setting("Link", "ActivationPolicy", Takes::Words(&["always-down", "manual"])),
    setting("Network", "ConfigureWithoutCarrier", Takes::Flag),
    setting("Network", "EmitLLDP", Takes::Flag),
    setting("Network", "IPv6LinkLocalAddressGenerationMode", Takes::Words(&["eui64", "stable-privacy"])),
    // Less than 1280 is no IPv6: RFC 8200, section 5.
    setting("Network", "IPv6MTUBytes", Takes::Number(1280, 65535)),
    setting("Network", "IPv6PrivacyExtensions", Takes::Flag),
    setting("Network", "LinkLocalAddressing", Takes::Words(&["no", "ipv4", "ipv6", "yes"])),
    setting("Route", "InitialAdvertisedReceiveWindow", Takes::Number(1, 1023)),
    setting("Route", "InitialCongestionWindow", Takes::Number(1, 1023)),
    setting("Route", "MTUBytes", Takes::Number(68, 65535)),
    setting("Route", "Metric", Takes::Number(0, u32::MAX)),
    setting("Route", "PreferredSource", Takes::Address),
    setting("Route", "Scope", Takes::Words(&["global", "link", "host"])),
    setting("Route", "Table", Takes::Number(1, u32::MAX)),
    setting("Route", "TCPAdvertisedMaximumSegmentSize", Takes::Number(1, 65535)),
    setting(
        "Route",
        "Type",
        Takes::Words(&[
            "unicast",
            "anycast",
            "blackhole",
            "broadcast",
            "local",
            "multicast",
            "nat",
            "prohibit",
            "throw",
            "unreachable",
            "xresolve",
        ]),
    ),
    setting("RoutingPolicyRule", "FirewallMark", Takes::Number(0, u32::MAX)),
    setting("RoutingPolicyRule", "Priority", Takes::Number(0, u32::MAX)),
    setting("RoutingPolicyRule", "Table", Takes::Number(1, u32::MAX)),
    setting("RoutingPolicyRule", "TypeOfService", Takes::Number(0, 255)),
];

/// The setting of a section; every name in a format's table has one.
pub(super) fn find_setting(section: &str, name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|one| one.section == section && one.name == name)
}

impl Setting {
    /// A value as networkd takes it.
    pub(super) fn accepted_value(&self, text: &str) -> Option<String> {
        let text = text.trim();
        match self.takes {
            Takes::Address => text.parse::<IpAddr>().ok().map(|ip| ip.to_string()),
            Takes::Addresses => address_list(text),
            Takes::FlagOr(word) if text.eq_ignore_ascii_case(word) => Some(word.to_owned()),
            Takes::Flag | Takes::FlagOr(_) => parse_flag(text).map(yes_or_no),
            Takes::Host => is_host(text).then(|| text.to_owned()),
            Takes::Number(least, most) => {
                let number: u32 = text.parse().ok()?;
                (least..=most).contains(&number).then(|| number.to_string())
            }
            Takes::Span(unit) => time_span(text, unit),
            Takes::Words(words) => find_word(words, text),
            Takes::Counted(words) => match text.parse::<usize>() {
                Ok(number) => words.get(number).map(|word| (*word).to_owned()),
                Err(_) => find_word(words, text),
            },
        }
    }

    /// What it takes, for a message.
    pub(super) fn wanted_words(&self) -> String {
        let list =
            |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        match self.takes {
            Takes::Address => "an address".to_owned(),
            Takes::Addresses => "addresses".to_owned(),
            Takes::Flag => "true or false".to_owned(),
            Takes::FlagOr(word) => format!("true, false or `{word}`"),
            Takes::Host => "a host name".to_owned(),
            Takes::Number(least, most) => format!("a whole number from {least} to {most}"),
            Takes::Span(unit) => format!("a time; a bare number counts {unit}"),
            Takes::Words(words) => format!("one of {}", list(words)),
            Takes::Counted(words) => format!("one of {}, or its number from 0", list(words)),
        }
    }

    /// Values that stand for all that it takes: every word, and both ends of a range.
    pub(super) fn sample_values(&self) -> Vec<String> {
        match self.takes {
            Takes::Address => vec!["192.0.2.1".to_owned()],
            Takes::Addresses => vec!["192.0.2.1".to_owned(), "192.0.2.1 192.0.2.2".to_owned()],
            Takes::Flag => vec!["yes".to_owned(), "no".to_owned()],
            Takes::FlagOr(word) => vec!["yes".to_owned(), "no".to_owned(), word.to_owned()],
            Takes::Host => vec!["node-1.example".to_owned()],
            Takes::Number(least, most) => vec![least.to_string(), most.to_string()],
            Takes::Span(unit) => vec![format!("1{unit}"), format!("200{unit}"), "2s".to_owned()],
            Takes::Words(words) | Takes::Counted(words) => {
                words.iter().map(|word| (*word).to_owned()).collect()
            }
        }
    }
}

/// As YAML 1.1, ifupdown and the kernel's own files write it.
pub(super) fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "on" | "true" => Some(true),
        "0" | "n" | "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

fn yes_or_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

fn find_word(words: &[&'static str], text: &str) -> Option<String> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| (*word).to_owned())
}

fn address_list(text: &str) -> Option<String> {
    let parsed: Option<Vec<String>> = super::value::split_words(text)
        .map(|word| word.parse::<IpAddr>().ok().map(|ip| ip.to_string()))
        .collect();
    parsed.filter(|list| !list.is_empty()).map(|list| list.join(" "))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The kernel's limit; networkd refuses a longer one.
    text.len() <= 64 && text.split('.').all(is_label)
}

/// `100`, `100ms`, `1.5s`. Longer forms such as `1min 20s` are networkd's alone.
fn time_span(text: &str, unit: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, given) = text.split_at(end);
    // Thirty years in seconds. Nothing of a network takes as long.
    number.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number))?;
    match given.trim() {
        "" => Some(format!("{number}{unit}")),
        given @ ("us" | "ms" | "s" | "sec" | "m" | "min") => Some(format!("{number}{given}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(section: &str, name: &str, text: &str) -> Option<String> {
        find_setting(section, name).unwrap().accepted_value(text)
    }

    #[test]
    fn the_kernels_numbers_become_networkds_words() {
        for (name, number, word) in [
            ("Mode", "0", "balance-rr"),
            ("Mode", "4", "802.3ad"),
            ("Mode", "6", "balance-alb"),
            ("TransmitHashPolicy", "1", "layer3+4"),
            ("LACPTransmitRate", "1", "fast"),
            ("FailOverMACPolicy", "2", "follow"),
            ("PrimaryReselectPolicy", "0", "always"),
            ("AdSelect", "1", "bandwidth"),
        ] {
            assert_eq!(value("Bond", name, number).as_deref(), Some(word), "{name}");
        }
        assert_eq!(value("Bond", "Mode", "7"), None);
    }

    #[test]
    fn a_word_that_networkd_does_not_have_is_refused() {
        for (section, name, text) in [
            ("Bond", "Mode", "lacp"),
            ("Bond", "ARPValidate", "filter"),
            ("Bond", "GratuitousARP", "256"),
            ("Bond", "MIIMonitorSec", "soon"),
            ("Bridge", "STP", "maybe"),
            ("DHCPv4", "Hostname", "-a"),
            ("DHCPv4", "UseDomains", "routes"),
            ("Route", "MTUBytes", "9k"),
        ] {
            assert_eq!(value(section, name, text), None, "{name}={text}");
        }
    }

    #[test]
    fn bare_times_get_the_unit_that_the_format_means() {
        assert_eq!(value("Bond", "MIIMonitorSec", "100").as_deref(), Some("100ms"));
        assert_eq!(value("Bond", "MIIMonitorSec", "1s").as_deref(), Some("1s"));
        assert_eq!(value("Bridge", "ForwardDelaySec", "4").as_deref(), Some("4s"));
    }

    #[test]
    fn no_setting_stands_here_twice() {
        for (index, one) in SETTINGS.iter().enumerate() {
            let again =
                SETTINGS[index + 1..].iter().any(|two| (two.section, two.name) == (one.section, one.name));
            assert!(!again, "{}: {}", one.section, one.name);
        }
    }
}
