//! The parameters of version 1's bonds and bridges, which are those of ifenslave and brctl.
//!
//! Knows their names, with hyphens or underscores and with or without what they begin with; Debian's
//! interfaces files and OpenStack's links have the same ones. Refuses to know where they stand.
//! Invariant: a parameter is set, has nothing to do here, or is reported.
//!
//! Documentation: the kernel's `Documentation/networking/bonding.rst`, ifenslave's README.Debian,
//! bridge-utils-interfaces(5).

use crate::cloudconfig::fields::text_of;
use crate::network::interface::{InterfaceWiring, Options, VirtualKind};
use crate::network::setting;
use crate::network::value;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{Node, Value};

const BOND_OPTIONS: [(&str, &str); 22] = [
    ("ad_actor_sys_prio", "AdActorSystemPriority"),
    ("ad_select", "AdSelect"),
    ("ad_user_port_key", "AdUserPortKey"),
    ("all_slaves_active", "AllSlavesActive"),
    ("arp_all_targets", "ARPAllTargets"),
    ("arp_interval", "ARPIntervalSec"),
    ("arp_ip_target", "ARPIPTargets"),
    ("arp_validate", "ARPValidate"),
    ("downdelay", "DownDelaySec"),
    ("fail_over_mac", "FailOverMACPolicy"),
    ("lacp_rate", "LACPTransmitRate"),
    ("lp_interval", "LearnPacketIntervalSec"),
    ("miimon", "MIIMonitorSec"),
    ("min_links", "MinLinks"),
    ("mode", "Mode"),
    ("num_grat_arp", "GratuitousARP"),
    // The kernel has one number under two names, bonding.rst.
    ("num_unsol_na", "GratuitousARP"),
    ("packets_per_slave", "PacketsPerSlave"),
    ("primary_reselect", "PrimaryReselectPolicy"),
    ("resend_igmp", "ResendIGMP"),
    ("updelay", "UpDelaySec"),
    ("xmit_hash_policy", "TransmitHashPolicy"),
];
const BRIDGE_OPTIONS: [(&str, &str); 6] = [
    ("ageing", "AgeingTimeSec"),
    ("bridgeprio", "Priority"),
    ("fd", "ForwardDelaySec"),
    ("hello", "HelloTimeSec"),
    ("maxage", "MaxAgeSec"),
    ("stp", "STP"),
];
/// What is said elsewhere, or what networkd and today's kernel do by themselves.
const WITHOUT_EFFECT: [&str; 7] = ["gcint", "links", "maxwait", "ports", "slaves", "use_carrier", "waitport"];

/// The settings that are collected from parameters.
pub(in crate::network) struct Parameters {
    kind: VirtualKind,
    pub(in crate::network) options: Options,
    /// The hardware address that it gets.
    pub(in crate::network) mac: Option<String>,
}

impl Parameters {
    pub(in crate::network) fn of_kind(kind: VirtualKind) -> Self {
        Self { kind, options: Options::new(), mac: None }
    }

    /// Adds one, by whichever of its spellings.
    pub(in crate::network) fn add(
        &mut self,
        name: &Located<String>,
        words: &[String],
        at: SourceMark,
        wiring: &mut InterfaceWiring,
        found: &mut Diagnostics,
    ) {
        let written = name.value.replace('-', "_");
        let (prefix, options) = match self.kind {
            VirtualKind::Bond => ("bond_", BOND_OPTIONS.as_slice()),
            _ => ("bridge_", BRIDGE_OPTIONS.as_slice()),
        };
        let short = written.strip_prefix(prefix).unwrap_or(&written);
        let known = options.iter().find(|(known, _)| *known == short);
        let known = known.and_then(|(_, setting)| setting::find_setting(self.kind.unit_section(), setting));
        let understood = match known {
            Some(setting) => {
                let value = setting.accepted_value(&words.join(" "));
                let understood = Understood::if_some(value.as_ref(), &setting.wanted_words());
                self.options.extend(value.map(|value| (setting.name, value)));
                understood
            }
            None => self.add_other(short, words, wiring),
        };
        match understood {
            Understood::Yes => {}
            Understood::NotThis(wanted) => {
                let message = format!("`{}` must be {wanted}", name.value);
                found.push(Diagnostic::error(DiagnosticCode::BadValue, at, message));
            }
            Understood::Unknown => found.push(unknown_parameter(name)),
        }
    }

    /// Adds what is no setting of the bond or the bridge itself.
    fn add_other(&mut self, short: &str, words: &[String], wiring: &mut InterfaceWiring) -> Understood {
        match (self.kind, short) {
            // Which member leads is a setting of that member.
            (VirtualKind::Bond, "primary" | "active_slave") => {
                let setting = if short == "primary" { "PrimarySlave" } else { "ActiveSlave" };
                let member = words.first().and_then(|name| value::interface_name(name));
                if let Some(member) = &member {
                    wiring.member_port(member).network.push((setting, "yes".to_owned()));
                }
                Understood::if_some(member.as_ref(), "the name of an interface")
            }
            (VirtualKind::Bridge, "pathcost" | "portprio") => {
                let setting = if short == "pathcost" { "Cost" } else { "Priority" };
                let added = add_ports(setting, words, wiring).then_some(());
                Understood::if_some(added.as_ref(), "ports and numbers, such as `eth0 50`")
            }
            (VirtualKind::Bridge, "hw") | (_, "mac_address") => {
                self.mac = words.first().and_then(|mac| value::parse_mac(mac));
                Understood::if_some(self.mac.as_ref(), "a hardware address")
            }
            _ if WITHOUT_EFFECT.contains(&short) => Understood::Yes,
            _ => Understood::Unknown,
        }
    }

    /// The options in one order, whatever order they were written in.
    pub(in crate::network) fn sorted_options(mut self) -> (Options, Option<String>) {
        self.options.sort_by_key(|(setting, _)| *setting);
        // Of two spellings of one parameter the first is used.
        self.options.dedup_by_key(|(setting, _)| *setting);
        (self.options, self.mac)
    }
}

/// What became of a parameter.
enum Understood {
    Yes,
    /// It is known, and must be this.
    NotThis(String),
    Unknown,
}

impl Understood {
    fn if_some<T>(value: Option<&T>, wanted: &str) -> Self {
        if value.is_some() { Self::Yes } else { Self::NotThis(wanted.to_owned()) }
    }
}

fn unknown_parameter(name: &Located<String>) -> Diagnostic {
    let message = format!("`{}` is not set here", name.value);
    Diagnostic::warning(DiagnosticCode::UnknownKey, name.at, message)
        .with_help("write a `.netdev` unit in `coreos.units`")
}

/// Pairs of a port and a number; says whether all were understood.
fn add_ports(setting: &str, words: &[String], wiring: &mut InterfaceWiring) -> bool {
    let Some(setting) = setting::find_setting("Bridge port", setting) else { return false };
    let mut understood = !words.is_empty() && words.len().is_multiple_of(2);
    for pair in words.chunks_exact(2) {
        match setting.accepted_value(&pair[1]) {
            Some(value) => wiring.member_port(&pair[0]).bridge.push((setting.name, value)),
            None => understood = false,
        }
    }
    understood
}

/// The words of a text, of the texts of a list, or of a mapping's keys and values.
pub(in crate::network) fn words_of(value: &Node) -> Vec<String> {
    let words = |text: &str| value::split_words(text).map(str::to_owned).collect::<Vec<_>>();
    match &value.value {
        Value::Mapping(entries) => entries
            .iter()
            .flat_map(|entry| [vec![entry.key.clone()], words_of(&entry.value)].concat())
            .collect(),
        Value::Sequence(items) => items.iter().flat_map(words_of).collect(),
        _ => text_of(value).map(|text| words(&text.value)).unwrap_or_default(),
    }
}
