//! Equinix Metal, formerly Packet: one JSON document over HTTPS.
//!
//! Knows that its servers hang on one bond with all addresses on it. Refuses to guess that a bare
//! server is one of theirs: the kernel command line has to name the platform.
//! Invariant: the bond is described only when the document names its interfaces.
//!
//! Documentation: <https://metal.equinix.com/developers/docs/server-metadata/metadata/>.

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform, WebError,
    evidence::PlatformEvidence,
    json::DocumentTree,
    netplan::{InterfaceLink, bond_payload},
    one_document::{self, FieldPaths},
};

// The second is the name from before Equinix bought Packet. Ignition and coreos-metadata still ask there.
const BASES: [&str; 2] = ["https://metadata.platformequinix.com", "https://metadata.packet.net"];

/// All private addresses of Equinix.
const PRIVATE_NETWORK: &str = "10.0.0.0/8";
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/id"],
    hostname: &["/hostname"],
    region: &["/metro"],
    zone: &["/facility"],
    instance_type: &["/plan"],
    keys: &["/ssh_keys"],
    ..FieldPaths::NONE
};

/// Nothing in the firmware tells these servers from others.
pub(crate) fn detect(_: &Host) -> Option<PlatformEvidence> {
    None
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let service = web.metadata_service(&BASES);
    let document = one_document::fetch_document(Platform::Equinix, &service, "/metadata")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/userdata"));
    Ok(provision)
}

/// Tells Equinix that the machine is up: an empty POST to the address in the document.
pub(crate) fn check_in(web: &MetadataWeb) -> Result<(), WebError> {
    let service = web.metadata_service(&BASES);
    let document = service.get_item("/metadata")?.unwrap_or_default();
    let address = DocumentTree::from_json(&document).ok().and_then(|tree| tree.text_at("/phone_home_url"));
    match address {
        Some(address) => web.post_page(&address, b"{}"),
        None => Ok(()),
    }
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Equinix, document, &PLACES);
    add_addresses(&mut provision, &tree.list_at("/network/addresses"));
    provision.set_attribute("PACKET_HOSTNAME", provision.hostname.clone());
    provision.set_attribute("PACKET_PLAN", provision.instance_type.clone());
    provision.network_config = network_payload(&tree);
    provision
}

fn add_addresses(provision: &mut InstanceMetadata, addresses: &[DocumentTree]) {
    let mut counts = [0_usize; 4];
    for entry in addresses {
        let (kind, slot) = match (entry.text_at("/address_family").as_deref(), entry.is_true("/public")) {
            (Some("4"), true) => ("IPV4_PUBLIC", 0),
            (Some("4"), false) => ("IPV4_PRIVATE", 1),
            (Some("6"), true) => ("IPV6_PUBLIC", 2),
            _ => ("IPV6_PRIVATE", 3),
        };
        let index = counts[slot];
        counts[slot] += 1;
        provision.set_attribute(&format!("PACKET_{kind}_{index}"), entry.text_at("/address"));
        provision.set_attribute(&format!("PACKET_{kind}_GATEWAY_{index}"), entry.text_at("/gateway"));
        let known = &mut provision.addresses;
        match slot {
            0 => known.public_ipv4 = known.public_ipv4.or_else(|| entry.parse_at("/address")),
            1 => known.private_ipv4 = known.private_ipv4.or_else(|| entry.parse_at("/address")),
            2 => known.public_ipv6 = known.public_ipv6.or_else(|| entry.parse_at("/address")),
            _ => known.private_ipv6 = known.private_ipv6.or_else(|| entry.parse_at("/address")),
        }
    }
}

fn network_payload(tree: &DocumentTree) -> Option<Payload> {
    let interfaces = tree.list_at("/network/interfaces");
    let members: Vec<InterfaceLink> =
        interfaces.iter().filter_map(|one| InterfaceLink::with_mac(&one.text_at("/mac")?)).collect();
    // LACP needs one hardware address for the bond. Equinix expects that of the first interface.
    let mut link = members.first()?.clone();
    for entry in tree.list_at("/network/addresses") {
        let text = |pointer: &str| entry.text_at(pointer);
        link.add_address(text("/address").as_deref(), text("/cidr").as_deref());
        if entry.is_true("/public") {
            link.add_gateway(text("/gateway").as_deref());
        } else if text("/address_family").as_deref() == Some("4") {
            // Other servers of the project are in other networks behind this gateway; without it, they would
            // be sought on the Internet. What has no gateway has no others.
            let _ = link.add_route(Some(PRIVATE_NETWORK), text("/gateway").as_deref());
        }
    }
    link.dns = tree.texts_below("/dns").iter().filter_map(|text| text.parse().ok()).collect();
    bond_payload(&members, &link)
}
