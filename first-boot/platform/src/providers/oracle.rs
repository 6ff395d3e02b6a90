//! Oracle Cloud: two JSON documents, in a second version and an older first one.
//!
//! Knows both. Refuses the first version wherever the second answers, because only the second is
//! safe from requests that others trick the machine into. Invariant: user-data is base64.
//!
//! Documentation: <https://docs.oracle.com/en-us/iaas/Content/Compute/Tasks/gettingmetadata.htm>.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
};

// The second is for instances in subnets without IPv4.
const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:c1::a9fe:a9fe]"];
/// Of every network of Oracle Cloud.
const MTU: u32 = 9000;
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/id"],
    hostname: &["/hostname", "/displayName"],
    // `region` is a short key such as `phx` in older regions, where only the other is the region's
    // identifier.
    region: &["/canonicalRegionName", "/region"],
    zone: &["/availabilityDomain"],
    instance_type: &["/shape"],
    keys: &["/metadata/ssh_authorized_keys"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("chassis_asset_tag", "OracleCloud.com")])
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let platform = Platform::Oracle;
    // The second version refuses requests without this header. The first one ignores it.
    let service = web.metadata_service(&BASES).with_header("Authorization", "Bearer Oracle");
    let mut root = "/opc/v2";
    let mut document = service.get_item(&format!("{root}/instance/")).map_err(platform.fetch_failed())?;
    // 404 is the answer of an instance whose second version is not there. With any other failure the first is
    // not asked.
    if document.is_none() {
        root = "/opc/v1";
        document = service.get_item(&format!("{root}/instance/")).map_err(platform.fetch_failed())?;
    }
    let mut provision = facts(&document.ok_or_else(|| platform.no_metadata())?);
    let interfaces = service.get_item(&format!("{root}/vnics/"));
    if let Some(interfaces) = provision.value_or_report("network interfaces", interfaces) {
        add_addresses(&mut provision, &interfaces);
    }
    Ok(provision)
}

/// Reads the instance's document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Oracle, document, &PLACES);
    if let Some(text) = tree.text_at("/metadata/user_data") {
        let packed: String = text.split_whitespace().collect();
        let decoded = BASE64_STANDARD.decode(packed).map(Some).map_err(|_| "it is not base64");
        provision.take_user_data(decoded);
    }
    provision.set_attribute("ORACLECLOUD_AVAILABILITY_DOMAIN", tree.text_at("/availabilityDomain"));
    provision.set_attribute("ORACLECLOUD_COMPARTMENT_ID", tree.text_at("/compartmentId"));
    provision.set_attribute("ORACLECLOUD_FAULT_DOMAIN", tree.text_at("/faultDomain"));
    provision.set_attribute("ORACLECLOUD_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("ORACLECLOUD_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("ORACLECLOUD_INSTANCE_SHAPE", provision.instance_type.clone());
    provision.set_attribute("ORACLECLOUD_REGION_ID", provision.region.clone());
    provision
}

fn add_addresses(provision: &mut InstanceMetadata, document: &[u8]) {
    let parsed = DocumentTree::from_json(document).map(Some);
    let Some(tree) = provision.value_or_report("network interfaces", parsed) else { return };
    provision.addresses.private_ipv4 = tree.parse_at("/0/privateIp");
    provision.addresses.public_ipv6 = tree.parse_at("/0/ipv6Addresses/0");
    provision.network_config = render_network(&tree.list_at(""));
}

/// The first interface has DHCP, which the others do not, so their addresses are written down. They get
/// no gateway: two default routes would be one too many. The interfaces of bare metal, which say an
/// index, are VLANs that the hypervisor does not undo; those are the owner's to set up.
fn render_network(interfaces: &[DocumentTree]) -> Option<Payload> {
    if interfaces.iter().any(|one| one.text_at("/nicIndex").is_some()) {
        return None;
    }
    let link = |interface: &DocumentTree| {
        let mut link = InterfaceLink::with_mac(&interface.text_at("/macAddr")?)?;
        link.mtu = Some(MTU);
        let prefix = |pointer: &str| Some(interface.text_at(pointer)?.split_once('/')?.1.to_owned());
        let v4 = interface.text_at("/privateIp");
        let mut is_needed = link.add_address(v4.as_deref(), prefix("/subnetCidrBlock").as_deref());
        for address in interface.texts_below("/ipv6Addresses") {
            is_needed |= link.add_address(Some(&address), prefix("/ipv6SubnetCidrBlock").as_deref());
        }
        is_needed.then_some(link)
    };
    ethernets_payload(&interfaces.iter().skip(1).filter_map(link).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(document: &str) -> Option<String> {
        let mut provision = InstanceMetadata::new(Platform::Oracle);
        add_addresses(&mut provision, document.as_bytes());
        assert_eq!(provision.problems, []);
        Some(String::from_utf8_lossy(provision.network_config?.as_bytes()).into_owned())
    }

    const FIRST: &str = r#"{"privateIp": "10.0.0.230", "vlanTag": 1039, "macAddr": "02:00:17:05:D1:DB",
        "virtualRouterIp": "10.0.0.1", "subnetCidrBlock": "10.0.0.0/24"}"#;
    const SECOND: &str = r#"{"privateIp": "10.0.4.231", "vlanTag": 1041, "macAddr": "00:00:17:02:2B:B1",
        "virtualRouterIp": "10.0.4.1", "subnetCidrBlock": "10.0.4.0/24", "ipv6Addresses": ["2001:db8::5"],
        "ipv6SubnetCidrBlock": "2001:db8::/64"}"#;

    #[test]
    fn interfaces_beyond_the_first_are_not_lost() {
        assert_eq!(config_of(&format!("[{FIRST}]")), None);
        assert_eq!(
            config_of(&format!("[{FIRST}, {SECOND}]")).unwrap(),
            "{\"ethernets\":{\"nic0\":{\"addresses\":[\"10.0.4.231/24\",\"2001:db8::5/64\"],\"dhcp4\":false,\
             \"dhcp6\":false,\"match\":{\"macaddress\":\"00:00:17:02:2b:b1\"},\"mtu\":9000}},\"version\":2}"
        );
    }

    #[test]
    fn the_interfaces_of_bare_metal_are_left_alone() {
        let indexed = |text: &str| text.replacen('{', "{\"nicIndex\": 0, ", 1);

        assert_eq!(config_of(&format!("[{}, {}]", indexed(FIRST), indexed(SECOND))), None);
    }
}
