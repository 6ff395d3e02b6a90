//! One interface, whichever format described it.
//!
//! Knows what networkd can set. Refuses to know how formats name it. Invariant: every text in it was
//! checked by [`super::value`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use document::source::Mark;

/// One interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of networkd, all independent")]
pub(super) struct Interface {
    /// What other interfaces of the document call it.
    pub(super) id: String,
    /// Where it was described.
    pub(super) at: Mark,
    /// The path of keys to it.
    pub(super) key: String,
    pub(super) device: Device,
    /// The name it gets.
    pub(super) new_name: Option<String>,
    /// The hardware address it gets.
    pub(super) new_mac: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) wake_on_lan: bool,
    /// Whether the machine is online without it.
    pub(super) optional: bool,
    pub(super) dhcp4: bool,
    pub(super) dhcp6: bool,
    pub(super) accept_ra: Option<bool>,
    pub(super) addresses: Vec<String>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// Settings of networkd's sections `DHCPv4` and `DHCPv6`.
    pub(super) dhcp4_options: Vec<(&'static str, String)>,
    pub(super) dhcp6_options: Vec<(&'static str, String)>,
    /// `Bond=bond0`, `Bridge=br0`.
    pub(super) master: Option<(&'static str, String)>,
    /// The VLANs on it.
    pub(super) vlans: Vec<String>,
}

/// What kind of interface it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Device {
    /// One that is made, with this kind, name and settings of the section named like the kind.
    Made { kind: Kind, name: String, options: Vec<(&'static str, String)> },
    /// One that is there, found by these signs.
    There { name: Option<String>, mac: Option<String>, driver: Option<String> },
}

/// A kind of interface that can be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Bond,
    Bridge,
    Vlan,
}

/// One route.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Route {
    pub(super) to: String,
    pub(super) via: Option<IpAddr>,
    pub(super) metric: Option<u32>,
    pub(super) table: Option<u32>,
    pub(super) on_link: bool,
}

/// How interfaces hang together, by their identifiers.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    /// Member → the setting that joins it and the name of what it joins.
    pub(super) masters: BTreeMap<String, (&'static str, String)>,
    /// Interface → the VLANs on it.
    pub(super) vlans: BTreeMap<String, Vec<String>>,
}

impl Interface {
    /// Whether this machine can be reached by it, as far as the document says.
    pub(super) fn has_address(&self) -> bool {
        let is_outer = |address: &String| !address.starts_with("127.") && !address.starts_with("::1/");
        self.dhcp4 || self.dhcp6 || self.accept_ra == Some(true) || self.addresses.iter().any(is_outer)
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::There { name: None, mac: None, driver: None }
    }
}

impl Kind {
    /// networkd's word for the kind.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Bond => "bond",
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
        }
    }

    /// The section with its settings.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Bond => "Bond",
            Self::Bridge => "Bridge",
            Self::Vlan => "VLAN",
        }
    }
}

impl Wiring {
    /// Tells every interface what it belongs to, and makes those that are only referred to.
    pub(super) fn connect(self, mut interfaces: Vec<Interface>) -> Vec<Interface> {
        for id in self.masters.keys().chain(self.vlans.keys()) {
            let known = interfaces.iter().any(|interface| interface.id == *id);
            if let Some(name) = super::value::interface_name(id).filter(|_| !known) {
                let device = Device::There { name: Some(name), mac: None, driver: None };
                interfaces.push(Interface {
                    id: id.clone(),
                    key: id.clone(),
                    device,
                    ..Interface::default()
                });
            }
        }
        for interface in &mut interfaces {
            interface.master = self.masters.get(&interface.id).cloned();
            interface.vlans = self.vlans.get(&interface.id).cloned().unwrap_or_default();
        }
        interfaces
    }
}
