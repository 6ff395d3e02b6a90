//! Settings of the system that are files in the end: time, language, trust, name servers.
//!
//! Knows which file takes each. Refuses what this image cannot honour. Invariant: what is written here
//! lies beside the image's own settings, in a drop-in where there is one.
//!
//! Documentation: cloud-init's modules "Timezone", "Locale", "NTP", "CA Certificates" and "Resolv Conf" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, timesyncd.conf(5), resolved.conf(5), RFC
//! 7468 (PEM).

use std::net::IpAddr;

use super::fields::{FieldKey, MappingFields, bad_choice, no_effect, supported_key, translated_key};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::Value;

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[
    supported_key("provision"),
    supported_key("timezone"),
    translated_key("locale", "LANG in /etc/locale.conf; the image has the C.UTF-8 locale only"),
    no_effect("locale_configfile", "the language is set in /etc/locale.conf"),
    translated_key("ntp", "/etc/systemd/timesyncd.conf.d/cloud-init.conf"),
    supported_key("ca_certs"),
    translated_key("resolv_conf", "/etc/systemd/resolved.conf.d/50-cloud-init.conf"),
    supported_key("manage_resolv_conf"),
    no_effect("keyboard", "the console keeps the kernel's keymap"),
    no_effect("random_seed", "systemd seeds the kernel from the firmware and from the last boot"),
    no_effect("seed_random", "systemd seeds the kernel from the firmware and from the last boot"),
];
/// The keys of `ntp`.
pub const NTP_KEYS: &[FieldKey] = &[
    supported_key("enabled"),
    supported_key("pools"),
    supported_key("servers"),
    translated_key("peers", "servers, since timesyncd is a client only"),
    no_effect("allow", "timesyncd serves no clients"),
    no_effect("ntp_client", "systemd-timesyncd keeps the time"),
    no_effect("config", "systemd-timesyncd keeps the time; its file has one place"),
];
/// The keys of `ca_certs`.
pub const CA_KEYS: &[FieldKey] = &[supported_key("trusted"), supported_key("remove_defaults")];
/// The keys of `resolv_conf`.
pub const RESOLV_KEYS: &[FieldKey] = &[
    supported_key("nameservers"),
    supported_key("searchdomains"),
    supported_key("domain"),
    no_effect("options", "systemd-resolved has its own way of asking"),
    no_effect("sortlist", "systemd-resolved has its own way of asking"),
];

// From the closest to the most open, as the guide lists them.
const SWITCHES: &[&str] = &["locked", "once", "always"];
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Settings of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemConfig {
    /// `provision`: whether the machine may be configured again.
    pub provision: Option<Located<String>>,
    /// `timezone`.
    pub timezone: Option<Located<String>>,
    /// `locale`.
    pub locale: Option<Located<String>>,
    /// Time servers.
    pub ntp: Option<Located<Vec<String>>>,
    /// Certificates in PEM, and whether the image's own are distrusted.
    pub authorities: Option<Located<(Vec<String>, bool)>>,
    /// Name servers and search domains.
    pub resolver: Option<Located<(Vec<String>, Vec<String>)>>,
}

impl SystemConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        Self {
            provision: read_provision(fields, found),
            timezone: read_word(fields, "timezone", "/_+-", found),
            locale: read_word(fields, "locale", "_.@-", found),
            ntp: read_ntp(fields, found),
            authorities: read_authorities(fields, found),
            resolver: read_resolver(fields, found),
        }
    }
}

/// One of the words that the agent knows; any other would close the machine.
fn read_provision(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let word = fields.read_text("provision", found)?;
    if SWITCHES.contains(&word.value.as_str()) {
        return Some(word);
    }
    let diagnostic = bad_choice("provision", &word.value, word.at, SWITCHES);
    fields.refuse_field("provision", diagnostic, found);
    None
}

/// Letters, digits and these; no dots that climb.
fn read_word(
    fields: &mut MappingFields<'_>,
    name: &str,
    others: &str,
    found: &mut Diagnostics,
) -> Option<Located<String>> {
    if fields
        .field_node(name)
        .is_some_and(|node| matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false)))
    {
        return None;
    }
    let text = fields.read_text(name, found)?;
    let good = text.value.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        // The name becomes a path below /usr/share/zoneinfo, and no zone begins otherwise.
        && text.value.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.value.len() <= 64;
    if good {
        return Some(text);
    }
    let example = if name == "timezone" { "Europe/Berlin" } else { "C.UTF-8" };
    let diagnostic = Diagnostic::error(
        DiagnosticCode::BadValue,
        text.at,
        format!("`{name}` must be a name like {example}"),
    );
    fields.refuse_field(name, diagnostic, found);
    None
}

fn read_ntp(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<Vec<String>>> {
    let node = fields.field_node("ntp")?;
    let mut inner = MappingFields::read_mapping(node, NTP_KEYS, fields.child_path("ntp"), found)?;
    let enabled = inner.flag_or_true("enabled", found);
    let mut servers = Vec::new();
    // timesyncd takes the first that answers, and named servers are nearer than a pool.
    for name in ["servers", "pools", "peers"] {
        servers.extend(read_hosts(&mut inner, name, found));
    }
    (enabled && !servers.is_empty()).then_some(Located { value: servers, at: node.at })
}

/// A name server by its name would have to be asked for at itself.
fn name_servers(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let mut good = Vec::new();
    for text in fields.read_texts("nameservers", found) {
        // resolved.conf(5): `%` parts an interface from the address, `#` a name for TLS.
        let address = text.value.split(['%', '#']).next().unwrap_or_default();
        if address.parse::<IpAddr>().is_ok() {
            good.push(text.value);
        } else {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                text.at,
                "this is not an address, such as 192.0.2.53",
            );
            fields.refuse_field("nameservers", diagnostic, found);
        }
    }
    good
}

/// Names or addresses; a bad one is left out.
fn read_hosts(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Vec<String> {
    let mut good = Vec::new();
    for text in fields.read_texts(name, found) {
        let legal = !text.value.is_empty()
            && text.value.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%#".contains(c));
        if legal {
            good.push(text.value);
        } else {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                text.at,
                "this is neither a host name nor an address",
            );
            fields.refuse_field(name, diagnostic, found);
        }
    }
    good
}

fn read_authorities(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Located<(Vec<String>, bool)>> {
    let node = fields.field_node("ca_certs")?;
    let mut inner = MappingFields::read_mapping(node, CA_KEYS, fields.child_path("ca_certs"), found)?;
    let remove = inner.read_flag("remove_defaults", found).is_some_and(|flag| flag.value);
    let mut trusted = Vec::new();
    for text in inner.read_texts("trusted", found) {
        if let Some(pem) = pem_blocks(&text.value) {
            trusted.push(pem);
        } else {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, text.at, "this is not a certificate in PEM form");
            inner.refuse_field("trusted", diagnostic.with_help(format!("it must begin with {BEGIN}")), found);
        }
    }
    // To distrust all because the own certificate was miswritten would end every TLS connection.
    let nothing_left = remove && trusted.is_empty();
    if nothing_left && inner.has_broken_field() {
        return None;
    }
    (remove || !trusted.is_empty()).then_some(Located { value: (trusted, remove), at: node.at })
}

/// The PEM blocks of a text, one after the other, if each of them is closed.
fn pem_blocks(text: &str) -> Option<String> {
    let mut rest = text;
    let mut blocks = String::new();
    while let Some(start) = rest.find(BEGIN) {
        let end = rest[start..].find(END)? + start + END.len();
        let lines = rest[start..end].lines().map(str::trim).filter(|line| !line.is_empty());
        lines.for_each(|line| blocks.extend([line, "\n"]));
        rest = &rest[end..];
    }
    (!blocks.is_empty()).then_some(blocks)
}

fn read_resolver(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Located<(Vec<String>, Vec<String>)>> {
    let managed = fields.flag_or_true("manage_resolv_conf", found);
    let node = fields.field_node("resolv_conf")?;
    let mut inner = MappingFields::read_mapping(node, RESOLV_KEYS, fields.child_path("resolv_conf"), found)?;
    let servers = name_servers(&mut inner, found);
    let mut domains = read_hosts(&mut inner, "searchdomains", found);
    domains.extend(read_hosts(&mut inner, "domain", found));
    if !managed {
        return None;
    }
    let at: SourceMark = node.at;
    (!servers.is_empty() || !domains.is_empty()).then_some(Located { value: (servers, domains), at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_blocks_are_taken_out_of_their_indentation() {
        let text = format!("# a comment\n  {BEGIN}\n  AAAA\n\n  {END}\n{BEGIN}\nBBBB\n{END}");

        assert_eq!(pem_blocks(&text).unwrap(), format!("{BEGIN}\nAAAA\n{END}\n{BEGIN}\nBBBB\n{END}\n"));
        assert_eq!(pem_blocks(BEGIN), None);
        assert_eq!(pem_blocks("hello"), None);
    }
}
