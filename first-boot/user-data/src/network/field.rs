//! Fields of a network description, read and checked alike in every format.
//!
//! Knows how a value that is wrong is reported. Refuses to know what a field is called. Invariant: what
//! is given back was checked by [`super::value`] or [`super::setting_objection`].
//!
//! Documentation: systemd.network(5), resolved.conf(5).

use std::net::IpAddr;

use crate::cloudconfig::fields::{MappingFields, text_of};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

use super::interface::{Address, Options};
use super::setting::{self, Setting};
use super::value::{self, BadNet, Net};

/// What an address must look like, for messages.
pub(super) const WANTED_NET: &str = "an address with its prefix, such as 10.0.0.2/24";

/// systemd-resolved takes 256 of a link, and asks one at a time; a longer text is a mistake or an attack.
pub(super) const MOST_SERVERS: usize = 64;

/// Less is no IPv4 (RFC 791, section 3.2), and more is no packet.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// A text that must look like something.
pub(super) fn checked_text<T>(
    fields: &mut MappingFields<'_>,
    name: &str,
    wanted: &str,
    check: impl Fn(&str) -> Option<T>,
    found: &mut Diagnostics,
) -> Option<T> {
    let text = fields.read_text(name, found).filter(is_given)?;
    let value = check(&text.value);
    if value.is_none() {
        let message = format!("`{name}` must be {wanted}");
        fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, text.at, message), found);
    }
    value
}

/// Providers write an empty text where they have nothing to say, which cloud-init reads over.
fn is_given(text: &Located<String>) -> bool {
    !text.value.trim().is_empty()
}

/// The address of a gateway. All zeros mean that there is none, as in the kernel's own tables.
pub(super) fn read_gateway(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<IpAddr> {
    read_address(fields, name, found).filter(|via| !via.is_unspecified())
}

/// The address of a server or a host.
pub(super) fn read_address(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<IpAddr> {
    checked_text(fields, name, "an address", value::parse_ip, found)
}

/// True or false, in whatever word or number; ifupdown and Vultr write `1`.
pub(super) fn read_switch(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<bool> {
    // Before the reader of cloud-config's booleans, which would report what only a network format writes.
    let written = fields.field_node(name).and_then(text_of).and_then(|text| setting::parse_flag(&text.value));
    written.or_else(|| fields.read_flag(name, found).map(|flag| flag.value))
}

/// How large packets may be; OpenStack writes zero when it does not know.
pub(super) fn read_mtu(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<u32> {
    let wanted = format!("a number from {} to {}", MTU.start(), MTU.end());
    let check = |text: &str| text.trim().parse().ok().filter(|mtu| *mtu == 0 || MTU.contains(mtu));
    checked_text(fields, name, &wanted, check, found).filter(|mtu| *mtu > 0)
}

/// Adds one of networkd's settings, when the field is there and has a value that networkd takes.
pub(super) fn set_option(
    fields: &mut MappingFields<'_>,
    name: &str,
    (section, setting): (&str, &'static str),
    options: &mut Options,
    found: &mut Diagnostics,
) {
    let Some(setting) = setting::find_setting(section, setting) else { return };
    let Some(node) = fields.field_node(name) else { return };
    if let Some(value) = value_of(setting, node) {
        return options.push((setting.name, value));
    }
    let message = format!("`{name}` must be {}", setting.wanted_words());
    fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, node.at, message), found);
}

/// What a node says of a setting; addresses may stand in a list.
pub(super) fn value_of(setting: &Setting, node: &Node) -> Option<String> {
    let text = match &node.value {
        document::yaml::Value::Sequence(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| Some(text_of(item)?.value)).collect();
            texts?.join(" ")
        }
        _ => text_of(node)?.value,
    };
    setting.accepted_value(&text)
}

/// An address of an older format, in which the size of its network may be missing: cloud-init then takes
/// 24 or 64, so machines rely on it. Taken as a host's, no gateway would be in reach.
pub(super) fn address_or_guess(
    fields: &mut MappingFields<'_>,
    name: &str,
    mask: Option<&str>,
    found: &mut Diagnostics,
) -> Option<Address> {
    let text = fields.read_text(name, found).filter(is_given)?;
    match Net::parse(&text.value, mask.filter(|mask| !mask.trim().is_empty())) {
        Ok(net) => Some(Address::from_net(net)),
        Err(BadNet::NoPrefix(ip)) => {
            let net = Net::guess_prefix(ip);
            let message =
                format!("this says no size of the network, so a prefix of {} is assumed", net.prefix);
            let help = format!("write {net}, or the prefix that is right");
            found.push(
                Diagnostic::warning(DiagnosticCode::Translated, text.at, message)
                    .with_help(help)
                    .with_key(fields.child_path(name)),
            );
            Some(Address::from_net(net))
        }
        Err(BadNet::Nonsense) => {
            let message = format!("`{name}` must be {WANTED_NET}");
            fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, text.at, message), found);
            None
        }
    }
}

/// The name servers and the searched domains of two fields. Each may be a list, or one text with white
/// space or commas between its words, as what was made of Debian's files has it.
pub(super) fn read_servers(
    fields: &mut MappingFields<'_>,
    addresses: &str,
    domains: &str,
    found: &mut Diagnostics,
) -> (Vec<IpAddr>, Vec<String>) {
    let dns = each_word(fields, addresses, "an address", value::parse_ip, found);
    let search = each_word(fields, domains, "a domain", value::parse_domain, found);
    (dns, search)
}

fn each_word<T>(
    fields: &mut MappingFields<'_>,
    name: &str,
    wanted: &str,
    check: impl Fn(&str) -> Option<T>,
    found: &mut Diagnostics,
) -> Vec<T> {
    let mut values = Vec::new();
    for text in fields.read_texts(name, found) {
        for word in value::split_words(&text.value) {
            if values.len() >= MOST_SERVERS {
                let message = format!("`{name}` has more than {MOST_SERVERS}; the others are not used");
                fields.refuse_field(
                    name,
                    Diagnostic::error(DiagnosticCode::LimitExceeded, text.at, message),
                    found,
                );
                return values;
            }
            match check(word) {
                Some(value) => values.push(value),
                None => found.push(bad_value(&text, wanted).with_key(fields.child_path(name))),
            }
        }
    }
    values
}

pub(super) fn bad_value(text: &Located<String>, wanted: &str) -> Diagnostic {
    Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("this must be {wanted}"))
}
