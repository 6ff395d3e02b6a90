//! The names that version 2's mappings may have, and what networkd calls them.
//!
//! Knows netplan's reference and the few keys that cloud-init alone has. Refuses to read anything.
//! Invariant: what is in no table is reported as unknown, and what is refused says what to do instead.
//!
//! Documentation: <https://netplan.readthedocs.io/en/stable/netplan-yaml/>

use crate::cloudconfig::fields::{Key, key, no_effect, refused};

const AS_NETDEV: &str = "write a `.netdev` unit in `coreos.units`";
const AS_LINK: &str = "write a `.link` unit in `coreos.units`";
const AS_NETWORK: &str = "write a `.network` unit in `coreos.units`";

pub(super) const ROOT_KEYS: &[Key] = &[
    key("version"),
    key("ethernets"),
    key("bonds"),
    key("bridges"),
    key("vlans"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused("wifis", "wireless networks need programs that the image does not have"),
    refused("modems", "mobile networks need programs that the image does not have"),
    refused("tunnels", AS_NETDEV),
    refused("vrfs", AS_NETDEV),
    refused("dummy_devices", AS_NETDEV),
    refused("virtual_ethernets", AS_NETDEV),
    refused("openvswitch", "write a bridge, or run Open vSwitch in a container"),
    refused("nm_devices", "NetworkManager is not in the image"),
];
pub(super) const INTERFACE_KEYS: &[Key] = &[
    key("match"),
    key("set_name"),
    key("wakeonlan"),
    key("dhcp4"),
    key("dhcp6"),
    key("dhcp4_overrides"),
    key("dhcp6_overrides"),
    key("dhcp_identifier"),
    key("addresses"),
    key("gateway4"),
    key("gateway6"),
    key("routes"),
    key("routing_policy"),
    key("nameservers"),
    key("mtu"),
    key("ipv6_mtu"),
    key("optional"),
    key("accept_ra"),
    key("link_local"),
    key("ipv6_address_generation"),
    key("ipv6_privacy"),
    key("ignore_carrier"),
    key("emit_lldp"),
    key("activation_mode"),
    key("macaddress"),
    key("interfaces"),
    key("parameters"),
    key("link"),
    key("id"),
    no_effect("critical", "networkd keeps what it configured when it restarts"),
    no_effect("optional_addresses", "networkd waits for no address that it is not told to wait for"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused("auth", "802.1X needs programs that the image does not have"),
    refused("infiniband_mode", AS_NETWORK),
    refused("ipv6_address_token", AS_NETWORK),
    refused("ra_overrides", AS_NETWORK),
    refused("openvswitch", "write a bridge, or run Open vSwitch in a container"),
    refused("neigh_suppress", AS_NETWORK),
    refused("hairpin", AS_NETWORK),
    refused("port_mac_learning", AS_NETWORK),
    refused("virtual_function_count", AS_LINK),
    refused("embedded_switch_mode", AS_LINK),
    refused("delay_virtual_functions_rebind", AS_LINK),
    refused("receive_checksum_offload", AS_LINK),
    refused("transmit_checksum_offload", AS_LINK),
    refused("tcp_segmentation_offload", AS_LINK),
    refused("tcp6_segmentation_offload", AS_LINK),
    refused("generic_segmentation_offload", AS_LINK),
    refused("generic_receive_offload", AS_LINK),
    refused("large_receive_offload", AS_LINK),
];
pub(super) const MATCH_KEYS: &[Key] = &[key("name"), key("macaddress"), key("driver")];
pub(super) const ADDRESS_KEYS: &[Key] = &[key("label"), key("lifetime")];
pub(super) const DNS_KEYS: &[Key] = &[key("addresses"), key("search")];
pub(super) const ROUTE_KEYS: &[Key] = &[
    key("to"),
    key("via"),
    key("on_link"),
    key("metric"),
    key("table"),
    key("type"),
    key("scope"),
    key("from"),
    key("mtu"),
    key("congestion_window"),
    key("advertised_receive_window"),
    key("advertised_mss"),
];
/// What is written of a route behind its gateway, in this order.
pub(super) const ROUTE_OPTIONS: [(&str, &str); 9] = [
    ("metric", "Metric"),
    ("table", "Table"),
    ("type", "Type"),
    ("scope", "Scope"),
    ("from", "PreferredSource"),
    ("mtu", "MTUBytes"),
    ("congestion_window", "InitialCongestionWindow"),
    ("advertised_receive_window", "InitialAdvertisedReceiveWindow"),
    ("advertised_mss", "TCPAdvertisedMaximumSegmentSize"),
];
pub(super) const RULE_KEYS: &[Key] =
    &[key("from"), key("to"), key("table"), key("priority"), key("mark"), key("type_of_service")];
pub(super) const RULE_OPTIONS: [(&str, &str); 4] = [
    ("table", "Table"),
    ("priority", "Priority"),
    ("mark", "FirewallMark"),
    ("type_of_service", "TypeOfService"),
];
pub(super) const OVERRIDE_KEYS: &[Key] = &[
    key("route_metric"),
    key("use_dns"),
    key("use_domains"),
    key("use_hostname"),
    key("use_mtu"),
    key("use_ntp"),
    key("use_routes"),
    key("send_hostname"),
    key("hostname"),
];
/// By DHCP, in its version 6, none of these is said: RFC 8415 knows neither routes nor the size of packets.
const NOT_OF_DHCP6: &str = "networkd has no such setting for DHCPv6";
pub(super) const OVERRIDE_6_KEYS: &[Key] = &[
    key("use_dns"),
    key("use_domains"),
    key("use_hostname"),
    key("use_ntp"),
    no_effect("route_metric", NOT_OF_DHCP6),
    no_effect("use_mtu", NOT_OF_DHCP6),
    no_effect("use_routes", NOT_OF_DHCP6),
    no_effect("send_hostname", NOT_OF_DHCP6),
    no_effect("hostname", NOT_OF_DHCP6),
];
/// networkd's names of what may be overridden.
pub(super) const OVERRIDES: [(&str, &str); 9] = [
    ("hostname", "Hostname"),
    ("route_metric", "RouteMetric"),
    ("send_hostname", "SendHostname"),
    ("use_dns", "UseDNS"),
    ("use_domains", "UseDomains"),
    ("use_hostname", "UseHostname"),
    ("use_mtu", "UseMTU"),
    ("use_ntp", "UseNTP"),
    ("use_routes", "UseRoutes"),
];
/// Settings of bonds: version 2's names and networkd's.
pub(super) const BOND_OPTIONS: [(&str, &str); 19] = [
    ("mode", "Mode"),
    ("ad_select", "AdSelect"),
    ("all_slaves_active", "AllSlavesActive"),
    ("arp_all_targets", "ARPAllTargets"),
    ("arp_interval", "ARPIntervalSec"),
    ("arp_ip_targets", "ARPIPTargets"),
    ("arp_validate", "ARPValidate"),
    ("down_delay", "DownDelaySec"),
    ("fail_over_mac_policy", "FailOverMACPolicy"),
    ("gratuitous_arp", "GratuitousARP"),
    ("lacp_rate", "LACPTransmitRate"),
    ("learn_packet_interval", "LearnPacketIntervalSec"),
    ("mii_monitor_interval", "MIIMonitorSec"),
    ("min_links", "MinLinks"),
    ("packets_per_slave", "PacketsPerSlave"),
    ("primary_reselect_policy", "PrimaryReselectPolicy"),
    ("resend_igmp", "ResendIGMP"),
    ("transmit_hash_policy", "TransmitHashPolicy"),
    ("up_delay", "UpDelaySec"),
];
/// Names that netplan once had, with those that it has now.
pub(super) const OLDER_BOND_NAMES: [(&str, &str); 3] = [
    ("all_members_active", "all_slaves_active"),
    ("gratuitious_arp", "gratuitous_arp"),
    ("packets_per_member", "packets_per_slave"),
];
pub(super) const BOND_KEYS: &[Key] = &[
    key("mode"),
    key("ad_select"),
    key("all_members_active"),
    key("all_slaves_active"),
    key("arp_all_targets"),
    key("arp_interval"),
    key("arp_ip_targets"),
    key("arp_validate"),
    key("down_delay"),
    key("fail_over_mac_policy"),
    key("gratuitious_arp"),
    key("gratuitous_arp"),
    key("lacp_rate"),
    key("learn_packet_interval"),
    key("mii_monitor_interval"),
    key("min_links"),
    key("packets_per_member"),
    key("packets_per_slave"),
    key("primary"),
    key("primary_reselect_policy"),
    key("resend_igmp"),
    key("transmit_hash_policy"),
    key("up_delay"),
];
pub(super) const BRIDGE_OPTIONS: [(&str, &str); 6] = [
    ("ageing_time", "AgeingTimeSec"),
    ("forward_delay", "ForwardDelaySec"),
    ("hello_time", "HelloTimeSec"),
    ("max_age", "MaxAgeSec"),
    ("priority", "Priority"),
    ("stp", "STP"),
];
pub(super) const BRIDGE_KEYS: &[Key] = &[
    key("ageing_time"),
    key("aging_time"),
    key("forward_delay"),
    key("hello_time"),
    key("max_age"),
    key("path_cost"),
    key("port_priority"),
    key("priority"),
    key("stp"),
];

pub(in crate::network) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("v2", ROOT_KEYS),
        ("v2.*.*", INTERFACE_KEYS),
        ("v2.*.*.match", MATCH_KEYS),
        ("v2.*.*.addresses[].*", ADDRESS_KEYS),
        ("v2.*.*.nameservers", DNS_KEYS),
        ("v2.*.*.routes[]", ROUTE_KEYS),
        ("v2.*.*.routing_policy[]", RULE_KEYS),
        ("v2.*.*.dhcp4_overrides", OVERRIDE_KEYS),
        ("v2.*.*.dhcp6_overrides", OVERRIDE_6_KEYS),
        ("v2.bonds.*.parameters", BOND_KEYS),
        ("v2.bridges.*.parameters", BRIDGE_KEYS),
    ]
}
