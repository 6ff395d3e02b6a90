//! The names that version 2's mappings may have, and what networkd calls them.
//!
//! Knows netplan's reference and the few keys that cloud-init alone has. Refuses to read anything.
//! Invariant: what is in no table is reported as unknown, and what is refused says what to do instead.
//!
//! Documentation: <https://netplan.readthedocs.io/en/stable/netplan-yaml/>

use crate::cloudconfig::fields::{FieldKey, no_effect, refused_key, supported_key};

// networkd itself can do all of these. Its own units are the way to what few documents ask for.
const AS_NETDEV: &str = "write a `.netdev` unit in `coreos.units`";
const AS_LINK: &str = "write a `.link` unit in `coreos.units`";
const AS_NETWORK: &str = "write a `.network` unit in `coreos.units`";

pub(super) const ROOT_KEYS: &[FieldKey] = &[
    supported_key("version"),
    supported_key("ethernets"),
    supported_key("bonds"),
    supported_key("bridges"),
    supported_key("vlans"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused_key("wifis", "wireless networks need programs that the image does not have"),
    refused_key("modems", "mobile networks need programs that the image does not have"),
    refused_key("tunnels", AS_NETDEV),
    refused_key("vrfs", AS_NETDEV),
    refused_key("dummy_devices", AS_NETDEV),
    refused_key("virtual_ethernets", AS_NETDEV),
    refused_key("openvswitch", "write a bridge, or run Open vSwitch in a container"),
    refused_key("nm_devices", "NetworkManager is not in the image"),
];
pub(super) const INTERFACE_KEYS: &[FieldKey] = &[
    supported_key("match"),
    supported_key("set_name"),
    supported_key("wakeonlan"),
    supported_key("dhcp4"),
    supported_key("dhcp6"),
    supported_key("dhcp4_overrides"),
    supported_key("dhcp6_overrides"),
    supported_key("dhcp_identifier"),
    supported_key("addresses"),
    supported_key("gateway4"),
    supported_key("gateway6"),
    supported_key("routes"),
    supported_key("routing_policy"),
    supported_key("nameservers"),
    supported_key("mtu"),
    supported_key("ipv6_mtu"),
    supported_key("optional"),
    supported_key("accept_ra"),
    supported_key("link_local"),
    supported_key("ipv6_address_generation"),
    supported_key("ipv6_privacy"),
    supported_key("ignore_carrier"),
    supported_key("emit_lldp"),
    supported_key("activation_mode"),
    supported_key("macaddress"),
    supported_key("interfaces"),
    supported_key("parameters"),
    supported_key("link"),
    supported_key("id"),
    no_effect("critical", "networkd keeps what it configured when it restarts"),
    no_effect("optional_addresses", "networkd waits for no address that it is not told to wait for"),
    no_effect("renderer", "systemd-networkd is the only one here"),
    refused_key("auth", "802.1X needs programs that the image does not have"),
    refused_key("infiniband_mode", AS_NETWORK),
    refused_key("ipv6_address_token", AS_NETWORK),
    refused_key("ra_overrides", AS_NETWORK),
    refused_key("openvswitch", "write a bridge, or run Open vSwitch in a container"),
    refused_key("neigh_suppress", AS_NETWORK),
    refused_key("hairpin", AS_NETWORK),
    refused_key("port_mac_learning", AS_NETWORK),
    refused_key("virtual_function_count", AS_LINK),
    refused_key("embedded_switch_mode", AS_LINK),
    refused_key("delay_virtual_functions_rebind", AS_LINK),
    refused_key("receive_checksum_offload", AS_LINK),
    refused_key("transmit_checksum_offload", AS_LINK),
    refused_key("tcp_segmentation_offload", AS_LINK),
    refused_key("tcp6_segmentation_offload", AS_LINK),
    refused_key("generic_segmentation_offload", AS_LINK),
    refused_key("generic_receive_offload", AS_LINK),
    refused_key("large_receive_offload", AS_LINK),
];
pub(super) const MATCH_KEYS: &[FieldKey] =
    &[supported_key("name"), supported_key("macaddress"), supported_key("driver")];
pub(super) const ADDRESS_KEYS: &[FieldKey] = &[supported_key("label"), supported_key("lifetime")];
pub(super) const DNS_KEYS: &[FieldKey] = &[supported_key("addresses"), supported_key("search")];
pub(super) const ROUTE_KEYS: &[FieldKey] = &[
    supported_key("to"),
    supported_key("via"),
    supported_key("on_link"),
    supported_key("metric"),
    supported_key("table"),
    supported_key("type"),
    supported_key("scope"),
    supported_key("from"),
    supported_key("mtu"),
    supported_key("congestion_window"),
    supported_key("advertised_receive_window"),
    supported_key("advertised_mss"),
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
pub(super) const RULE_KEYS: &[FieldKey] = &[
    supported_key("from"),
    supported_key("to"),
    supported_key("table"),
    supported_key("priority"),
    supported_key("mark"),
    supported_key("type_of_service"),
];
pub(super) const RULE_OPTIONS: [(&str, &str); 4] = [
    ("table", "Table"),
    ("priority", "Priority"),
    ("mark", "FirewallMark"),
    ("type_of_service", "TypeOfService"),
];
pub(super) const OVERRIDE_KEYS: &[FieldKey] = &[
    supported_key("route_metric"),
    supported_key("use_dns"),
    supported_key("use_domains"),
    supported_key("use_hostname"),
    supported_key("use_mtu"),
    supported_key("use_ntp"),
    supported_key("use_routes"),
    supported_key("send_hostname"),
    supported_key("hostname"),
];
/// By DHCP, in its version 6, none of these is said: RFC 8415 knows neither routes nor the size of packets.
const NOT_OF_DHCP6: &str = "networkd has no such setting for DHCPv6";
pub(super) const OVERRIDE_6_KEYS: &[FieldKey] = &[
    supported_key("use_dns"),
    supported_key("use_domains"),
    supported_key("use_hostname"),
    supported_key("use_ntp"),
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
// netplan mends the slip of `gratuitious` and keeps both.
pub(super) const OLDER_BOND_NAMES: [(&str, &str); 3] = [
    ("all_members_active", "all_slaves_active"),
    ("gratuitious_arp", "gratuitous_arp"),
    ("packets_per_member", "packets_per_slave"),
];
pub(super) const BOND_KEYS: &[FieldKey] = &[
    supported_key("mode"),
    supported_key("ad_select"),
    supported_key("all_members_active"),
    supported_key("all_slaves_active"),
    supported_key("arp_all_targets"),
    supported_key("arp_interval"),
    supported_key("arp_ip_targets"),
    supported_key("arp_validate"),
    supported_key("down_delay"),
    supported_key("fail_over_mac_policy"),
    supported_key("gratuitious_arp"),
    supported_key("gratuitous_arp"),
    supported_key("lacp_rate"),
    supported_key("learn_packet_interval"),
    supported_key("mii_monitor_interval"),
    supported_key("min_links"),
    supported_key("packets_per_member"),
    supported_key("packets_per_slave"),
    supported_key("primary"),
    supported_key("primary_reselect_policy"),
    supported_key("resend_igmp"),
    supported_key("transmit_hash_policy"),
    supported_key("up_delay"),
];
pub(super) const BRIDGE_OPTIONS: [(&str, &str); 6] = [
    ("ageing_time", "AgeingTimeSec"),
    ("forward_delay", "ForwardDelaySec"),
    ("hello_time", "HelloTimeSec"),
    ("max_age", "MaxAgeSec"),
    ("priority", "Priority"),
    ("stp", "STP"),
];
pub(super) const BRIDGE_KEYS: &[FieldKey] = &[
    supported_key("ageing_time"),
    supported_key("aging_time"),
    supported_key("forward_delay"),
    supported_key("hello_time"),
    supported_key("max_age"),
    supported_key("path_cost"),
    supported_key("port_priority"),
    supported_key("priority"),
    supported_key("stp"),
];

pub(in crate::network) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
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
