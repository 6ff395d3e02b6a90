//! Oracle Cloud: two JSON documents, in a second version and an older first one.
//!
//! Knows both. Refuses the first version wherever the second answers, because only the second is
//! safe from requests that others trick the machine into. Invariant: user-data is base64.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{FetchError, Host, Payload, Platform, Provision, Web, json::Tree, registry::Evidence};

const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:c1::a9fe:a9fe]"];

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
    let mut provision = Provision::new(Platform::Oracle);
    let parsed = Tree::from_json(document).map(Some);
    let Some(tree) = provision.take("metadata", parsed) else { return provision };
    provision.instance_id = tree.text("/id");
    provision.set_hostname(tree.text("/hostname").or_else(|| tree.text("/displayName")));
    provision.region = tree.text("/canonicalRegionName").or_else(|| tree.text("/region"));
    provision.zone = tree.text("/availabilityDomain");
    provision.instance_type = tree.text("/shape");
    if let Some(keys) = tree.text("/metadata/ssh_authorized_keys") {
        provision.add_keys(&keys);
    }
    if let Some(text) = tree.text("/metadata/user_data") {
        let packed: String = text.split_whitespace().collect();
        let decoded = BASE64_STANDARD.decode(packed).map(Some).map_err(|_| "it is not base64");
        provision.user_data = provision.take("user-data", decoded).and_then(Payload::from_bytes);
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
