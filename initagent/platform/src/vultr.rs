//! Vultr: one JSON document, and the user-data beside it.
//!
//! Knows both generations of instance numbers. Refuses to run the start-up script that the
//! document may carry. Invariant: public interfaces stay with DHCP; only private ones are static.

use crate::{
    FetchError, Host, Payload, Platform, Provision, Web,
    json::Tree,
    netplan::{Link, ethernets},
    registry::Evidence,
};

const BASES: [&str; 1] = ["http://169.254.169.254"];

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(host, &[("sys_vendor", "Vultr")]).or_else(|| {
        let named = host.command_line().iter().any(|word| word == "vultr");
        named.then(|| Evidence::network("kernel command line: vultr"))
    })
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let platform = Platform::Vultr;
    let service = web.service(&BASES).with_header("Metadata-Token", "cloudinit");
    let document = service.get("/v1.json").map_err(platform.silent())?.ok_or_else(|| platform.unknown())?;
    let mut provision = facts(&document);
    let user_data = service.get_data("/user-data/user-data");
    provision.user_data = provision.take("user-data", user_data).and_then(Payload::from_bytes);
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let mut provision = Provision::new(Platform::Vultr);
    let parsed = Tree::from_json(document).map(Some);
    let Some(tree) = provision.take("metadata", parsed) else { return provision };
    let version_2 = tree.text("/instance-v2-id");
    provision.instance_id = version_2.or_else(|| tree.text("/instanceid"));
    provision.set_hostname(tree.text("/hostname"));
    provision.region = tree.text("/region/regioncode");
    for key in tree.texts("/public-keys") {
        provision.add_keys(&key);
    }
    provision.vendor_data = tree.content("/vendor-data").and_then(Payload::from_bytes);
    let interfaces = tree.list("/interfaces");
    let of = |kind: &str| interfaces.iter().find(|one| one.text("/network-type").as_deref() == Some(kind));
    provision.addresses.public_ipv4 = of("public").and_then(|one| one.parsed("/ipv4/address"));
    provision.addresses.public_ipv6 = of("public").and_then(|one| one.parsed("/ipv6/address"));
    provision.addresses.private_ipv4 = of("private").and_then(|one| one.parsed("/ipv4/address"));
    provision.attribute("VULTR_HOSTNAME", provision.hostname.clone());
    provision.attribute("VULTR_INSTANCE_ID", provision.instance_id.clone());
    provision.attribute("VULTR_REGION_CODE", provision.region.clone());
    provision.network_config = of("private").and_then(|_| ethernets(&links(&interfaces)));
    provision
}

fn links(interfaces: &[Tree]) -> Vec<Link> {
    let link = |interface: &Tree| {
        let mut link = Link::with_mac(&interface.text("/mac")?)?;
        if interface.text("/network-type").as_deref() == Some("private") {
            let text = |pointer: &str| interface.text(pointer);
            link.add_address(text("/ipv4/address").as_deref(), text("/ipv4/netmask").as_deref());
        } else {
            link.dhcp4 = true;
            link.dhcp6 = interface.text("/ipv6/address").is_some();
        }
        Some(link)
    };
    interfaces.iter().filter_map(link).collect()
}
