//! Vultr: one JSON document, and the user-data beside it.
//!
//! Knows both generations of instance numbers. Refuses to run the start-up script that the
//! document may carry. Invariant: public interfaces stay with DHCP; only private ones are static.

use crate::{
    FetchError, Host, Platform, Provision, Web,
    json::Tree,
    netplan::{Link, ethernets},
    one_document::{self, Places},
    registry::Evidence,
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const PLACES: Places = Places {
    instance_id: &["/instance-v2-id", "/instanceid"],
    hostname: &["/hostname"],
    region: &["/region/regioncode"],
    keys: &["/public-keys"],
    vendor_data: &["/vendor-data"],
    ..Places::NONE
};

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(host, &[("sys_vendor", "Vultr")]).or_else(|| {
        let named = host.command_line().iter().any(|word| word == "vultr");
        named.then(|| Evidence::network("kernel command line: vultr"))
    })
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let service = web.service(&BASES).with_header("Metadata-Token", "cloudinit");
    let document = one_document::ask(Platform::Vultr, &service, "/v1.json")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/user-data/user-data"));
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let (mut provision, tree) = one_document::read(Platform::Vultr, document, &PLACES);
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
