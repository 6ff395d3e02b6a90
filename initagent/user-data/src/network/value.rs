//! Names, addresses and words that may stand in a unit.
//!
//! Knows what each may look like. Refuses everything else. Invariant: what passes holds no white
//! space and no line end, so it can't become another setting.

use std::net::IpAddr;

/// The kernel's limit for names of interfaces, without the zero at its end.
const LONGEST_NAME: usize = 15;

/// A name that the kernel accepts for an interface.
pub(super) fn interface_name(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let valid = !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text.chars().all(legal)
        && text != "."
        && text != "..";
    valid.then(|| text.to_owned())
}

/// A pattern for names, such as `en*`.
pub(super) fn name_pattern(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.*?[]!".contains(c);
    (!text.is_empty() && text.len() <= 64 && text.chars().all(legal)).then(|| text.to_owned())
}

/// A hardware address.
pub(super) fn mac(text: &str) -> Option<String> {
    let octets: Vec<&str> = text.trim().split([':', '-']).collect();
    let octet = |text: &&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (octets.len() == 6 && octets.iter().all(octet)).then(|| octets.join(":").to_ascii_lowercase())
}

/// An address without a prefix.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok()
}

/// An address with its prefix, which may stand behind it or beside it, as a number or a mask.
pub(super) fn with_prefix(address: &str, mask: Option<&str>) -> Option<String> {
    let (address, behind) = match address.trim().split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (address.trim(), None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match behind.or(mask) {
        Some(text) => prefix(text.trim())?,
        None => most,
    };
    (prefix <= most).then(|| format!("{address}/{prefix}"))
}

/// From `24`, `255.255.255.0` or `ffff:ffff::`.
fn prefix(text: &str) -> Option<u32> {
    let bits = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) => (u32::from(mask).leading_ones(), u32::from(mask).count_ones()),
        Ok(IpAddr::V6(mask)) => (u128::from(mask).leading_ones(), u128::from(mask).count_ones()),
        Err(_) => return text.parse().ok(),
    };
    (bits.0 == bits.1).then_some(bits.0)
}

/// A destination: a network, or `default` for all of the family of `via`.
pub(super) fn destination(text: &str, mask: Option<&str>, via: Option<IpAddr>) -> Option<String> {
    match text.trim() {
        "default" | "0.0.0.0"
            if via.is_none_or(|via| via.is_ipv4()) && mask.is_none_or(|mask| mask == "0.0.0.0") =>
        {
            Some("0.0.0.0/0".to_owned())
        }
        "default" | "::" => Some("::/0".to_owned()),
        text => with_prefix(text, mask),
    }
}

/// A domain that is searched.
pub(super) fn domain(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    (!text.is_empty() && text.len() <= 255 && text.chars().all(legal)).then(|| text.to_owned())
}

/// One word of a table of settings, such as `802.3ad` or `layer3+4`.
pub(super) fn word(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:+/".contains(c);
    (!text.is_empty() && text.len() <= 64 && text.chars().all(legal)).then(|| text.to_owned())
}

/// An identifier as part of a file name.
pub(super) fn file_word(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    text.chars().take(64).map(legal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_stand_behind_or_beside() {
        assert_eq!(with_prefix("10.0.0.1/24", None).as_deref(), Some("10.0.0.1/24"));
        assert_eq!(with_prefix("10.0.0.1", Some("255.255.240.0")).as_deref(), Some("10.0.0.1/20"));
        assert_eq!(
            with_prefix("2001:db8::1", Some("ffff:ffff:ffff:ffff::")).as_deref(),
            Some("2001:db8::1/64")
        );
        assert_eq!(with_prefix("10.0.0.1", None).as_deref(), Some("10.0.0.1/32"));
        assert_eq!(with_prefix("10.0.0.1/33", None), None);
        assert_eq!(with_prefix("10.0.0.1", Some("255.0.255.0")), None);
    }

    #[test]
    fn default_routes_belong_to_a_family() {
        assert_eq!(destination("default", None, ip("fe80::1")).as_deref(), Some("::/0"));
        assert_eq!(destination("default", None, ip("10.0.0.1")).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(destination("0.0.0.0", Some("0.0.0.0"), None).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(destination("10.1.0.0", Some("255.255.0.0"), None).as_deref(), Some("10.1.0.0/16"));
    }

    #[test]
    fn nothing_with_a_line_end_passes() {
        let bad = "eth0\nDHCP=yes";
        assert_eq!(interface_name(bad), None);
        assert_eq!(name_pattern(bad), None);
        assert_eq!(word(bad), None);
        assert_eq!(domain(bad), None);
        assert_eq!(mac("00:11:22:33:44:5\n"), None);
        assert_eq!(file_word("a/../b\n"), "a_.._b_");
    }
}
