//! One interface, whichever format described it.
//!
//! Knows what networkd can set. Refuses to know how formats name it. Invariant: every text in it was
//! checked by [`super::value`].
//!
//! Documentation: systemd.network(5), systemd.netdev(5), systemd.link(5).

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use document::source::SourceMark;

use super::value::Net;

/// The interface of every machine that leads to itself.
pub(super) const LOOP_BACK: &str = "lo";

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of networkd, all independent")]
pub(super) struct NetworkInterface {
    /// What other interfaces of the document call it.
    pub(super) id: String,
    /// Where it was described.
    pub(super) at: SourceMark,
    /// The path of keys to it.
    pub(super) key: String,
    pub(super) device: DeviceKind,
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
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<InterfaceRoute>,
    pub(super) rules: Vec<Options>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// Whether name servers were given for this interface alone, so that those for all do not count here.
    pub(super) has_own_dns: bool,
    /// Settings of networkd's sections of these names.
    pub(super) link_options: Options,
    pub(super) network_options: Options,
    pub(super) dhcp4_options: Options,
    pub(super) dhcp6_options: Options,
    /// `Bond=bond0`, `Bridge=br0`.
    pub(super) master: Option<(&'static str, String)>,
    pub(super) port: Port,
    /// The VLANs on it.
    pub(super) vlans: Vec<String>,
}

/// Settings by their names in one section.
pub(super) type Options = Vec<(&'static str, String)>;

/// What a bond or a bridge says of one of its members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Port {
    /// `PrimarySlave=yes`.
    pub(super) network: Options,
    /// Of the section `Bridge`.
    pub(super) bridge: Options,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) net: Net,
    /// Such as `Label`.
    pub(super) options: Options,
}

/// What kind of interface it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeviceKind {
    /// One that is made, with this kind, name and settings of the section named like the kind.
    Made { kind: VirtualKind, name: String, options: Options },
    /// One that is there, found by these signs.
    There { name: Option<String>, mac: Option<String>, driver: Option<String> },
}

/// A kind of interface that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VirtualKind {
    Bond,
    Bridge,
    Vlan,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceRoute {
    pub(super) to: Net,
    pub(super) via: Option<IpAddr>,
    /// Whether the gateway is reached directly, whatever networks the interface has; `None` when the
    /// document does not say.
    pub(super) on_link: Option<bool>,
    /// `Metric`, `Table` and so on, in the order in which they are written.
    pub(super) options: Options,
    /// Where it was described.
    pub(super) at: SourceMark,
}

/// How interfaces hang together, by their identifiers.
#[derive(Debug, Clone, Default)]
pub(super) struct InterfaceWiring {
    /// Member → the setting that joins it and the name of what it joins.
    pub(super) masters: BTreeMap<String, (&'static str, String)>,
    /// Member → what its master says of it.
    pub(super) ports: BTreeMap<String, Port>,
    /// Interface → the VLANs on it.
    pub(super) vlans: BTreeMap<String, Vec<String>>,
}

impl NetworkInterface {
    /// Whether this machine can be reached by it, as far as the document says.
    pub(super) fn has_address(&self) -> bool {
        self.is_outer()
            && (self.dhcp4
                || self.dhcp6
                || self.accept_ra == Some(true)
                || self.addresses.iter().any(|address| !address.net.ip.is_loopback()))
    }

    /// Whether it leads out of this machine.
    pub(super) fn is_outer(&self) -> bool {
        self.id != LOOP_BACK
    }

    /// Whether one of its own networks has this address, or a route says that it is on the link.
    pub(super) fn is_near(&self, ip: IpAddr) -> bool {
        // Each IPv6 interface has an address of fe80::/64, so such a gateway is always in reach.
        let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let has_type = |route: &InterfaceRoute| route.options.iter().any(|(name, _)| *name == "Type");
        let is_on_link = |route: &InterfaceRoute| {
            // A default route without a gateway would make every address near.
            route.via.is_none() && route.to.prefix > 0 && route.to.contains_address(ip) && !has_type(route)
        };
        is_link_local
            || self.addresses.iter().any(|address| address.net.contains_address(ip))
            || self.routes.iter().any(is_on_link)
    }

    /// Whether it has an address of the family by this document.
    pub(super) fn has_static(&self, family: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.net.ip.is_ipv4() == family.is_ipv4())
    }

    /// Whether it may get an address of the family from the network. networkd listens to router
    /// advertisements unless told otherwise.
    pub(super) fn may_learn(&self, family: IpAddr) -> bool {
        if family.is_ipv4() { self.dhcp4 } else { self.dhcp6 || self.accept_ra != Some(false) }
    }
}

impl Address {
    pub(super) fn from_net(net: Net) -> Self {
        Self { net, options: Vec::new() }
    }
}

impl InterfaceRoute {
    /// A route by a gateway, as far as most formats can say.
    pub(super) fn new(to: Net, via: Option<IpAddr>, at: SourceMark) -> Self {
        Self { to, via, on_link: None, options: Vec::new(), at }
    }

    /// The route of a `gateway` that says no destination: everything of its family.
    pub(super) fn default_by(via: IpAddr, at: SourceMark) -> Self {
        let ip = if via.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self::new(Net { ip, prefix: 0 }, Some(via), at)
    }
}

impl Default for DeviceKind {
    fn default() -> Self {
        Self::There { name: None, mac: None, driver: None }
    }
}

impl VirtualKind {
    /// networkd's word for the kind.
    pub(super) fn kind_word(self) -> &'static str {
        match self {
            Self::Bond => "bond",
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
        }
    }

    /// The section with its settings.
    pub(super) fn unit_section(self) -> &'static str {
        match self {
            Self::Bond => "Bond",
            Self::Bridge => "Bridge",
            Self::Vlan => "VLAN",
        }
    }
}

impl InterfaceWiring {
    /// What the master of a member says of it.
    pub(super) fn member_port(&mut self, member: &str) -> &mut Port {
        self.ports.entry(member.to_owned()).or_default()
    }

    /// Tells every interface what it belongs to, and makes those that are only referred to.
    pub(super) fn connect_interfaces(self, mut interfaces: Vec<NetworkInterface>) -> Vec<NetworkInterface> {
        let mut known: HashSet<String> = interfaces.iter().map(|interface| interface.id.clone()).collect();
        // OpenStack and netplan may name a member only in its bond. Without a unit, networkd would not join
        // it.
        for id in self.masters.keys().chain(self.vlans.keys()) {
            let is_new = known.insert(id.clone());
            if let Some(name) = super::value::interface_name(id).filter(|_| is_new) {
                let device = DeviceKind::There { name: Some(name), mac: None, driver: None };
                interfaces.push(NetworkInterface {
                    id: id.clone(),
                    key: id.clone(),
                    device,
                    ..NetworkInterface::default()
                });
            }
        }
        for interface in &mut interfaces {
            interface.master = self.masters.get(&interface.id).cloned();
            interface.port = self.ports.get(&interface.id).cloned().unwrap_or_default();
            interface.vlans = self.vlans.get(&interface.id).cloned().unwrap_or_default();
        }
        interfaces
    }
}
