//! `DigitalOcean`: one JSON document at the link-local address.
//!
//! Knows the droplet's document. Refuses to use the config drive that may be attached as well,
//! because it tells less. Invariant: the document is asked for once.
//!
//! Documentation: <https://docs.digitalocean.com/reference/api/metadata/>.

use std::net::IpAddr;

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/droplet_id"],
    hostname: &["/hostname"],
    region: &["/region"],
    keys: &["/public_keys"],
    user_data: &["/user_data"],
    vendor_data: &["/vendor_data"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "DigitalOcean")])
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let service = web.metadata_service(&BASES);
    let document = one_document::fetch_document(Platform::DigitalOcean, &service, "/metadata/v1.json")?;
    let mut provision = facts(&document);
    // The document holds user-data, too. Where it is broken, this address still has the user-data alone.
    if provision.lacks_item("metadata") {
        provision.take_user_data(service.get_data("/metadata/v1/user-data"));
    }
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::DigitalOcean, document, &PLACES);
    add_addresses(&mut provision, &tree);
    provision.set_attribute("DIGITALOCEAN_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("DIGITALOCEAN_REGION", provision.region.clone());
    provision.network_config = ethernets_payload(&interface_links(&tree));
    provision
}

fn add_addresses(provision: &mut InstanceMetadata, tree: &DocumentTree) {
    let public = "/interfaces/public/0";
    let private = "/interfaces/private/0";
    provision.addresses.public_ipv4 = tree.parse_at(&format!("{public}/ipv4/ip_address"));
    provision.addresses.public_ipv6 = tree.parse_at(&format!("{public}/ipv6/ip_address"));
    provision.addresses.private_ipv4 = tree.parse_at(&format!("{private}/ipv4/ip_address"));
    provision.addresses.private_ipv6 = tree.parse_at(&format!("{private}/ipv6/ip_address"));
    for (kind, name) in [("public", "PUBLIC"), ("private", "PRIVATE")] {
        for (index, interface) in tree.list_at(&format!("/interfaces/{kind}")).iter().enumerate() {
            let mut set = |what: String, pointer: &str| {
                provision.set_attribute(&what, interface.parse_at::<IpAddr>(pointer));
            };
            set(format!("DIGITALOCEAN_IPV4_{name}_{index}"), "/ipv4/ip_address");
            set(format!("DIGITALOCEAN_IPV6_{name}_{index}"), "/ipv6/ip_address");
            set(format!("DIGITALOCEAN_IPV4_ANCHOR_{index}"), "/anchor_ipv4/ip_address");
        }
    }
}

fn interface_links(tree: &DocumentTree) -> Vec<InterfaceLink> {
    let dns: Vec<_> =
        tree.texts_below("/dns/nameservers").iter().filter_map(|text| text.parse().ok()).collect();
    let interfaces = [tree.list_at("/interfaces/public"), tree.list_at("/interfaces/private")].concat();
    let link = |interface: &DocumentTree| {
        let mut link = InterfaceLink::with_mac(&interface.text_at("/mac")?)?;
        let text = |pointer: &str| interface.text_at(pointer);
        let v4 = link.add_address(text("/ipv4/ip_address").as_deref(), text("/ipv4/netmask").as_deref());
        let v6 = link.add_address(text("/ipv6/ip_address").as_deref(), text("/ipv6/cidr").as_deref());
        // Reserved addresses are translated to the anchor address, so packets for them come only if it is
        // set.
        link.add_address(text("/anchor_ipv4/ip_address").as_deref(), text("/anchor_ipv4/netmask").as_deref());
        // Two default routes would compete, and the private network leads nowhere else.
        if text("/type").as_deref() == Some("public") {
            link.add_gateway(text("/ipv4/gateway").as_deref());
            link.add_gateway(text("/ipv6/gateway").as_deref());
        }
        link.dns.clone_from(&dns);
        (v4 || v6).then_some(link)
    };
    interfaces.iter().filter_map(link).collect()
}
