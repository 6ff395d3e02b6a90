//! Names, addresses and words that may stand in a unit.
//!
//! Knows what each may look like. Refuses everything else. Invariant: what passes holds no white
//! space and no line end, so it cannot become another setting.
//!
//! Documentation: ip-address(8), netdevice(7), RFC 4632 (prefixes), RFC 1035 (names).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's limit for names of interfaces, without the zero at its end.
// `IFNAMSIZ` is 16.
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

/// What an address is called, such as `eth0:1`.
pub(super) fn address_label(text: &str) -> Option<String> {
    interface_name(&text.replace(':', "_")).map(|_| text.to_owned())
}

/// A pattern for names, such as `en*`.
pub(super) fn name_pattern(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.*?[]!".contains(c);
    (!text.is_empty() && text.len() <= 64 && text.chars().all(legal)).then(|| text.to_owned())
}

/// A hardware address.
pub(super) fn parse_mac(text: &str) -> Option<String> {
    let octets: Vec<&str> = text.trim().split([':', '-']).collect();
    let octet = |text: &&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (octets.len() == 6 && octets.iter().all(octet)).then(|| octets.join(":").to_ascii_lowercase())
}

/// An address without a prefix.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok()
}

/// An address in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Net {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

/// Why a text is no address in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadNet {
    /// It is an address, and nothing says how large its network is.
    NoPrefix(IpAddr),
    Nonsense,
}

impl Net {
    /// An address with its prefix, which may stand behind it or beside it, as a number or a mask.
    pub(super) fn parse(address: &str, mask: Option<&str>) -> Result<Self, BadNet> {
        let (address, behind) = match address.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (address.trim(), None),
        };
        let ip: IpAddr = address.parse().map_err(|_| BadNet::Nonsense)?;
        let text = behind.or(mask).ok_or(BadNet::NoPrefix(ip))?;
        let prefix = parse_prefix(text.trim()).filter(|prefix| *prefix <= Self::longest_prefix(ip));
        prefix.map(|prefix| Self { ip, prefix }).ok_or(BadNet::Nonsense)
    }

    /// The address in a network of the size that cloud-init's version 1 takes when nothing says it.
    pub(super) fn guess_prefix(ip: IpAddr) -> Self {
        Self { ip, prefix: if ip.is_ipv4() { 24 } else { 64 } }
    }

    fn longest_prefix(ip: IpAddr) -> u8 {
        if ip.is_ipv4() { 32 } else { 128 }
    }

    /// Whether an address is in this network.
    pub(super) fn contains_address(&self, other: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let low = u32::from(Self::longest_prefix(self.ip) - self.prefix);
        self.ip.is_ipv4() == other.is_ipv4()
            // To shift by all 128 bits would overflow, and means that each address is in the network.
            && bits(self.ip).checked_shr(low).unwrap_or(0) == bits(other).checked_shr(low).unwrap_or(0)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// From `24`, `255.255.255.0` or `ffff:ffff::`.
fn parse_prefix(text: &str) -> Option<u8> {
    let bits = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) => (u32::from(mask).leading_ones(), u32::from(mask).count_ones()),
        Ok(IpAddr::V6(mask)) => (u128::from(mask).leading_ones(), u128::from(mask).count_ones()),
        Err(_) => return text.parse().ok(),
    };
    // RFC 950 once allowed masks with gaps. Nothing routes by them today.
    u8::try_from(bits.0).ok().filter(|_| bits.0 == bits.1)
}

/// A destination: a network, a host, or `default` for all of the family of `via`.
pub(super) fn parse_destination(text: &str, mask: Option<&str>, via: Option<IpAddr>) -> Option<Net> {
    let all = |ip: IpAddr| Some(Net { ip, prefix: 0 });
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let is_all = |mask: Option<&str>| mask.is_none_or(|mask| parse_prefix(mask.trim()) == Some(0));
    match text.trim() {
        "default" if via.is_none_or(|via| via.is_ipv4()) => all(v4),
        "0.0.0.0" if is_all(mask) => all(v4),
        "default" => all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        "::" if is_all(mask) => all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        text => match Net::parse(text, mask) {
            Err(BadNet::NoPrefix(ip)) => Some(Net { ip, prefix: Net::longest_prefix(ip) }),
            parsed => parsed.ok(),
        },
    }
}

/// The words of a text with white space or commas between them.
pub(super) fn split_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty())
}

/// A domain that is searched.
pub(super) fn parse_domain(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    (!text.is_empty() && text.len() <= 255 && text.chars().all(legal)).then(|| text.to_owned())
}

/// An identifier as part of a file name.
pub(super) fn file_word(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    // File names may be 255 bytes long, and systemd's prefix and ending need room.
    text.chars().take(64).map(legal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(address: &str, mask: Option<&str>) -> Result<String, BadNet> {
        Net::parse(address, mask).map(|net| net.to_string())
    }

    fn to(text: &str, mask: Option<&str>, via: Option<&str>) -> Option<String> {
        parse_destination(text, mask, via.and_then(parse_ip)).map(|net| net.to_string())
    }

    #[test]
    fn prefixes_stand_behind_or_beside() {
        assert_eq!(net("10.0.0.1/24", None).as_deref(), Ok("10.0.0.1/24"));
        assert_eq!(net("10.0.0.1/255.255.255.0", None).as_deref(), Ok("10.0.0.1/24"));
        assert_eq!(net("10.0.0.1", Some("255.255.240.0")).as_deref(), Ok("10.0.0.1/20"));
        assert_eq!(net("10.0.0.1", Some("20")).as_deref(), Ok("10.0.0.1/20"));
        assert_eq!(net("2001:db8::1", Some("ffff:ffff:ffff:ffff::")).as_deref(), Ok("2001:db8::1/64"));
        assert_eq!(net("10.0.0.1", None), Err(BadNet::NoPrefix([10, 0, 0, 1].into())));
        assert_eq!(net("10.0.0.1/33", None), Err(BadNet::Nonsense));
        assert_eq!(net("10.0.0.1", Some("255.0.255.0")), Err(BadNet::Nonsense));
    }

    #[test]
    fn networks_hold_their_own_addresses_only() {
        let net = |text| Net::parse(text, None).unwrap();

        assert!(net("10.0.0.5/24").contains_address([10, 0, 0, 1].into()));
        assert!(!net("10.0.0.5/24").contains_address([10, 0, 1, 1].into()));
        assert!(!net("10.0.0.5/32").contains_address([10, 0, 0, 1].into()));
        assert!(net("0.0.0.0/0").contains_address([10, 0, 0, 1].into()));
        assert!(!net("0.0.0.0/0").contains_address(parse_ip("::1").unwrap()));
        assert!(net("2001:db8::5/64").contains_address(parse_ip("2001:db8::1").unwrap()));
        assert!(net("::/0").contains_address(parse_ip("2001:db8::1").unwrap()));
    }

    #[test]
    fn default_routes_belong_to_a_family() {
        assert_eq!(to("default", None, Some("fe80::1")).as_deref(), Some("::/0"));
        assert_eq!(to("default", None, Some("10.0.0.1")).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(to("0.0.0.0", Some("0.0.0.0"), None).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(to("::", Some("::"), None).as_deref(), Some("::/0"));
        assert_eq!(to("::", Some("0"), None).as_deref(), Some("::/0"));
        assert_eq!(to("10.1.0.0", Some("255.255.0.0"), None).as_deref(), Some("10.1.0.0/16"));
        assert_eq!(to("10.1.0.7", None, None).as_deref(), Some("10.1.0.7/32"));
    }

    #[test]
    fn nothing_with_a_line_end_passes() {
        let bad = "eth0\nDHCP=yes";
        assert_eq!(interface_name(bad), None);
        assert_eq!(name_pattern(bad), None);
        assert_eq!(parse_domain(bad), None);
        assert_eq!(parse_mac("00:11:22:33:44:5\n"), None);
        assert_eq!(file_word("a/../b\n"), "a_.._b_");
    }
}
