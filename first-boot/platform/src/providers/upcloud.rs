//! `UpCloud`: one JSON document, and the user-data beside it.
//!
//! Knows the document. Refuses to touch interfaces that all use DHCP: the image's default does.
//! Invariant: a server whose owner has not switched the service on is reported as that.
//!
//! Documentation: <https://upcloud.com/docs/products/cloud-servers/features/metadata-service/>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, ethernets_payload},
    one_document::{self, FieldPaths},
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/instance_id"],
    hostname: &["/hostname"],
    region: &["/region"],
    keys: &["/public_keys"],
    vendor_data: &["/vendor_data"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "UpCloud")])
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let service = web.metadata_service(&BASES);
    let document = one_document::fetch_document(Platform::UpCloud, &service, "/metadata/v1.json")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/metadata/v1/user_data"));
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::UpCloud, document, &PLACES);
    let interfaces = tree.list_at("/network/interfaces");
    let address_of = |kind: &str, family: &str| {
        let of_kind = |one: &&DocumentTree| one.text_at("/type").as_deref() == Some(kind);
        let addresses = interfaces.iter().filter(of_kind).flat_map(|one| one.list_at("/ip_addresses"));
        let mut of_family = addresses.filter(|one| one.text_at("/family").as_deref() == Some(family));
        of_family.find_map(|one| one.text_at("/address"))
    };
    provision.addresses.public_ipv4 = address_of("public", "IPv4").and_then(|text| text.parse().ok());
    provision.addresses.public_ipv6 = address_of("public", "IPv6").and_then(|text| text.parse().ok());
    let private = address_of("private", "IPv4").or_else(|| address_of("utility", "IPv4"));
    provision.addresses.private_ipv4 = private.and_then(|text| text.parse().ok());
    provision.set_attribute("UPCLOUD_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("UPCLOUD_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("UPCLOUD_REGION", provision.region.clone());
    provision.network_config = network_payload(&interfaces);
    provision
}

fn network_payload(interfaces: &[DocumentTree]) -> Option<Payload> {
    let mut all_automatic = true;
    let mut link_of = |interface: &DocumentTree| {
        let mut link = InterfaceLink::with_mac(&interface.text_at("/mac")?)?;
        for address in interface.list_at("/ip_addresses") {
            let is_v6 = address.text_at("/family").as_deref() == Some("IPv6");
            if address.is_true("/dhcp") {
                link.dhcp4 |= !is_v6;
                link.dhcp6 |= is_v6;
                continue;
            }
            all_automatic = false;
            let network = address.text_at("/network");
            let prefix =
                network.as_deref().and_then(|network| network.split_once('/')).map(|(_, prefix)| prefix);
            // A floating address moves between servers, so it belongs to no network of this one.
            let floating = address.is_true("/floating").then_some(if is_v6 { "128" } else { "32" });
            link.add_address(address.text_at("/address").as_deref(), prefix.or(floating));
            link.add_gateway(address.text_at("/gateway").as_deref());
            link.dns.extend(
                address.texts_below("/dns").iter().filter_map(|text| text.parse::<std::net::IpAddr>().ok()),
            );
        }
        Some(link)
    };
    let links: Vec<InterfaceLink> = interfaces.iter().filter_map(&mut link_of).collect();
    // Where DHCP gives every address, a copy of them in files would only be able to grow old.
    if all_automatic { None } else { ethernets_payload(&links) }
}
