//! Oracle Cloud: two JSON documents, in a second version and an older first one.
//!
//! Knows both. Refuses the first version wherever the second answers, because only the second is
//! safe from requests that others trick the machine into. Invariant: user-data is base64.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    FetchError, Host, Platform, Provision, Web,
    json::Tree,
    one_document::{self, Places},
    registry::Evidence,
};

const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:c1::a9fe:a9fe]"];
const PLACES: Places = Places {
    instance_id: &["/id"],
    hostname: &["/hostname", "/displayName"],
    region: &["/canonicalRegionName", "/region"],
    zone: &["/availabilityDomain"],
    instance_type: &["/shape"],
    keys: &["/metadata/ssh_authorized_keys"],
    ..Places::NONE
};

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(host, &[("chassis_asset_tag", "OracleCloud.com")])
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let platform = Platform::Oracle;
    let service = web.service(&BASES).with_header("Authorization", "Bearer Oracle");
    let mut root = "/opc/v2";
    let mut document = service.get(&format!("{root}/instance/")).map_err(platform.silent())?;
    if document.is_none() {
        root = "/opc/v1";
        document = service.get(&format!("{root}/instance/")).map_err(platform.silent())?;
    }
    let mut provision = facts(&document.ok_or_else(|| platform.unknown())?);
    let interfaces = service.get(&format!("{root}/vnics/"));
    if let Some(interfaces) = provision.take("network interfaces", interfaces) {
        add_addresses(&mut provision, &interfaces);
    }
    Ok(provision)
}

/// Reads the instance's document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let (mut provision, tree) = one_document::read(Platform::Oracle, document, &PLACES);
    if let Some(text) = tree.text("/metadata/user_data") {
        let packed: String = text.split_whitespace().collect();
        let decoded = BASE64_STANDARD.decode(packed).map(Some).map_err(|_| "it is not base64");
        provision.take_user_data(decoded);
    }
    provision.attribute("ORACLECLOUD_AVAILABILITY_DOMAIN", tree.text("/availabilityDomain"));
    provision.attribute("ORACLECLOUD_COMPARTMENT_ID", tree.text("/compartmentId"));
    provision.attribute("ORACLECLOUD_FAULT_DOMAIN", tree.text("/faultDomain"));
    provision.attribute("ORACLECLOUD_HOSTNAME", provision.hostname.clone());
    provision.attribute("ORACLECLOUD_INSTANCE_ID", provision.instance_id.clone());
    provision.attribute("ORACLECLOUD_INSTANCE_SHAPE", provision.instance_type.clone());
    provision.attribute("ORACLECLOUD_REGION_ID", provision.region.clone());
    provision
}

fn add_addresses(provision: &mut Provision, document: &[u8]) {
    let parsed = Tree::from_json(document).map(Some);
    let Some(tree) = provision.take("network interfaces", parsed) else { return };
    provision.addresses.private_ipv4 = tree.parsed("/0/privateIp");
    provision.addresses.public_ipv6 = tree.parsed("/0/ipv6Addresses/0");
}
