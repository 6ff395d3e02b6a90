//! Builds the version 2 network configuration that stands for a cloud's own description.
//!
//! Knows the few keys that static addresses need. Refuses to know what units come of it.
//! Invariant: an address, gateway or MAC from outside is parsed before it is written down, so that
//! nothing but addresses gets through.
//!
//! Documentation: <https://netplan.readthedocs.io/en/stable/netplan-yaml/>.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::Payload;

/// One network interface.
#[derive(Debug, Clone, Default)]
pub(crate) struct InterfaceLink {
    /// What finds it, as version 2's `match` says it.
    signs: Map<String, Value>,
    pub(crate) dhcp4: bool,
    pub(crate) dhcp6: bool,
    addresses: Vec<String>,
    routes: Vec<Value>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) mtu: Option<u32>,
    /// Of the routes that DHCP gives; the smaller goes first.
    pub(crate) metric: Option<u32>,
}

/// What of a route cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteError {
    Destination,
    Gateway,
}

impl InterfaceLink {
    /// The interface with this hardware address; `None` when it is not one.
    pub(crate) fn with_mac(mac: &str) -> Option<Self> {
        let octets: Vec<&str> = mac.split(':').collect();
        let octet = |text: &&str| text.len() == 2 && u8::from_str_radix(text, 16).is_ok();
        let valid = octets.len() == 6 && octets.iter().all(octet);
        valid.then(|| Self::found_by("macaddress", &mac.to_ascii_lowercase()))
    }

    /// The interfaces of this name, which may be a pattern such as `ens*`.
    pub(crate) fn with_name(name: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.*?[]".contains(c);
        // The kernel's limit is 15; a pattern may be longer than what it stands for.
        let valid = (1..=32).contains(&name.len()) && name.chars().all(legal);
        valid.then(|| Self::found_by("name", name))
    }

    /// The same interface, but only if it has this driver: two devices may have one hardware address.
    pub(crate) fn of_driver(mut self, driver: &str) -> Self {
        self.signs.insert("driver".to_owned(), json!(driver));
        self
    }

    fn found_by(sign: &str, value: &str) -> Self {
        Self { signs: Map::from_iter([(sign.to_owned(), json!(value))]), ..Self::default() }
    }

    /// Adds an address, whose prefix may be a number or a mask; says whether there was one.
    pub(crate) fn add_address(&mut self, address: Option<&str>, prefix: Option<&str>) -> bool {
        let Some(address) = address.and_then(|text| text.parse::<IpAddr>().ok()) else { return false };
        let Some(prefix) = prefix.and_then(|text| prefix_length(address, text)) else { return false };
        let address = format!("{address}/{prefix}");
        // Some documents say an address twice, in an older and a newer way.
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        true
    }

    /// Adds a default route; the zero address means that there is no gateway.
    pub(crate) fn add_gateway(&mut self, gateway: Option<&str>) {
        let Some(gateway) = gateway.and_then(|text| text.parse::<IpAddr>().ok()) else { return };
        if !gateway.is_unspecified() {
            let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            // Many clouds have gateways outside of the interface's network, which the kernel refuses without
            // `on-link`.
            let route = json!({"to": to, "via": gateway.to_string(), "on-link": true});
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
    }

    /// Adds a route to a network. All zeros or no destination is the default route; any other address
    /// without its prefix is no network.
    pub(crate) fn add_route(&mut self, to: Option<&str>, via: Option<&str>) -> Result<(), RouteError> {
        let gateway: IpAddr = via.and_then(|via| via.parse().ok()).ok_or(RouteError::Gateway)?;
        let Some(to) = to.filter(|to| *to != "0.0.0.0" && *to != "::") else {
            self.add_gateway(via);
            return Ok(());
        };
        let network = || {
            let (network, prefix) = to.split_once('/')?;
            let network: IpAddr = network.parse().ok()?;
            Some((network, prefix_length(network, prefix)?))
        };
        let (network, prefix) = network().ok_or(RouteError::Destination)?;
        self.routes
            .push(json!({"to": format!("{network}/{prefix}"), "via": gateway.to_string(), "on-link": true}));
        Ok(())
    }

    fn to_settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        settings.insert("dhcp4".to_owned(), json!(self.dhcp4));
        settings.insert("dhcp6".to_owned(), json!(self.dhcp6));
        if let Some(mtu) = self.mtu {
            settings.insert("mtu".to_owned(), json!(mtu));
        }
        if let Some(metric) = self.metric {
            settings.insert("dhcp4-overrides".to_owned(), json!({"route-metric": metric}));
        }
        if !self.addresses.is_empty() {
            settings.insert("addresses".to_owned(), json!(self.addresses));
        }
        if !self.routes.is_empty() {
            settings.insert("routes".to_owned(), json!(self.routes));
        }
        if !self.dns.is_empty() || !self.search.is_empty() {
            let mut servers = Map::new();
            servers.insert("addresses".to_owned(), json!(self.dns));
            if !self.search.is_empty() {
                servers.insert("search".to_owned(), json!(self.search));
            }
            settings.insert("nameservers".to_owned(), Value::Object(servers));
        }
        settings
    }
}

/// A configuration of separate interfaces; `None` when there are none.
pub(crate) fn ethernets_payload(links: &[InterfaceLink]) -> Option<Payload> {
    let ethernets = links.iter().enumerate().map(|(index, link)| {
        let mut settings = link.to_settings();
        settings.insert("match".to_owned(), json!(link.signs));
        (format!("nic{index}"), Value::Object(settings))
    });
    let ethernets: Map<String, Value> = ethernets.collect();
    (!ethernets.is_empty()).then(|| to_payload(&json!({"version": 2, "ethernets": ethernets}))).flatten()
}

/// A configuration of one LACP bond over the interfaces in `members`, with the settings of `link`.
pub(crate) fn bond_payload(members: &[InterfaceLink], link: &InterfaceLink) -> Option<Payload> {
    if members.is_empty() {
        return None;
    }
    let names: Vec<String> = (0..members.len()).map(|index| format!("nic{index}")).collect();
    let member = |(name, link): (&String, &InterfaceLink)| (name.clone(), json!({"match": link.signs}));
    let ethernets: Map<String, Value> = names.iter().zip(members).map(member).collect();
    let mut settings = link.to_settings();
    settings.insert("interfaces".to_owned(), json!(names));
    settings.insert("macaddress".to_owned(), json!(link.signs.get("macaddress")));
    // Equinix's switches speak LACP. afterburn sets the fast rate for the same bond.
    let parameters = json!({"mode": "802.3ad", "lacp-rate": "fast", "mii-monitor-interval": 200});
    settings.insert("parameters".to_owned(), parameters);
    to_payload(&json!({"version": 2, "ethernets": ethernets, "bonds": {"bond0": settings}}))
}

fn to_payload(value: &Value) -> Option<Payload> {
    Payload::from_bytes(value.to_string().into_bytes())
}

/// From `24` or `255.255.255.0`.
fn prefix_length(address: IpAddr, text: &str) -> Option<u32> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) => {
            let bits = u32::from(mask);
            (bits.leading_ones() == bits.count_ones()).then(|| bits.leading_ones())
        }
        Ok(IpAddr::V6(mask)) => Some(u128::from(mask).leading_ones()),
        Err(_) => text.parse().ok(),
    };
    length.filter(|length| *length <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_numbers_are_prefixes() {
        let v4 = IpAddr::from([10, 0, 0, 1]);

        assert_eq!(prefix_length(v4, "255.255.240.0"), Some(20));
        assert_eq!(prefix_length(v4, "24"), Some(24));
        assert_eq!(prefix_length(v4, "255.0.255.0"), None);
        assert_eq!(prefix_length(v4, "33"), None);
        assert_eq!(prefix_length("fe80::1".parse().unwrap(), "ffff:ffff::"), Some(32));
    }

    #[test]
    fn only_addresses_get_through() {
        let mut link = InterfaceLink::with_mac("0A:00:00:00:00:01").unwrap();
        assert!(!link.add_address(Some("10.0.0.1\n[Match]"), Some("24")));
        assert!(link.add_address(Some("10.0.0.1"), Some("255.255.255.0")));
        link.add_gateway(Some("0.0.0.0"));
        link.add_gateway(Some("x"));

        let text = String::from_utf8(ethernets_payload(&[link]).unwrap().as_bytes().to_vec()).unwrap();

        assert_eq!(
            text,
            "{\"ethernets\":{\"nic0\":{\"addresses\":[\"10.0.0.1/24\"],\"dhcp4\":false,\"dhcp6\":false,\
             \"match\":{\"macaddress\":\"0a:00:00:00:00:01\"}}},\"version\":2}"
        );
        assert!(InterfaceLink::with_mac("0a:00:00:00:00").is_none());
    }
}
