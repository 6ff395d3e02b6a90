//! Equinix Metal, formerly Packet: one JSON document over HTTPS.
//!
//! Knows that its servers hang on one bond with all addresses on it. Refuses to guess that a bare
//! server is one of theirs: the kernel command line has to name the platform.
//! Invariant: the bond is described only when the document names its interfaces.

use crate::{
    FetchError, Host, Payload, Platform, Provision, Web, WebError,
    json::Tree,
    netplan::{Link, bond},
    one_document::{self, Places},
    registry::Evidence,
};

const BASES: [&str; 2] = ["https://metadata.platformequinix.com", "https://metadata.packet.net"];

/// All private addresses of Equinix.
const PRIVATE_NETWORK: &str = "10.0.0.0/8";
const PLACES: Places = Places {
    instance_id: &["/id"],
    hostname: &["/hostname"],
    region: &["/metro"],
    zone: &["/facility"],
    instance_type: &["/plan"],
    keys: &["/ssh_keys"],
    ..Places::NONE
};

/// Nothing in the firmware tells these servers from others.
pub(crate) fn detect(_: &Host) -> Option<Evidence> {
    None
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let service = web.service(&BASES);
    let document = one_document::ask(Platform::Equinix, &service, "/metadata")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/userdata"));
    Ok(provision)
}

/// Tells Equinix that the machine is up: an empty POST to the address in the document.
pub(crate) fn check_in(web: &Web) -> Result<(), WebError> {
    let service = web.service(&BASES);
    let document = service.get("/metadata")?.unwrap_or_default();
    let address = Tree::from_json(&document).ok().and_then(|tree| tree.text("/phone_home_url"));
    match address {
        Some(address) => web.post_page(&address, b"{}"),
        None => Ok(()),
    }
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let (mut provision, tree) = one_document::read(Platform::Equinix, document, &PLACES);
    add_addresses(&mut provision, &tree.list("/network/addresses"));
    provision.attribute("PACKET_HOSTNAME", provision.hostname.clone());
    provision.attribute("PACKET_PLAN", provision.instance_type.clone());
    provision.network_config = network(&tree);
    provision
}

fn add_addresses(provision: &mut Provision, addresses: &[Tree]) {
    let mut counts = [0_usize; 4];
    for entry in addresses {
        let (kind, slot) = match (entry.text("/address_family").as_deref(), entry.is_true("/public")) {
            (Some("4"), true) => ("IPV4_PUBLIC", 0),
            (Some("4"), false) => ("IPV4_PRIVATE", 1),
            (Some("6"), true) => ("IPV6_PUBLIC", 2),
            _ => ("IPV6_PRIVATE", 3),
        };
        let index = counts[slot];
        counts[slot] += 1;
        provision.attribute(&format!("PACKET_{kind}_{index}"), entry.text("/address"));
        provision.attribute(&format!("PACKET_{kind}_GATEWAY_{index}"), entry.text("/gateway"));
        let known = &mut provision.addresses;
        match slot {
            0 => known.public_ipv4 = known.public_ipv4.or_else(|| entry.parsed("/address")),
            1 => known.private_ipv4 = known.private_ipv4.or_else(|| entry.parsed("/address")),
            2 => known.public_ipv6 = known.public_ipv6.or_else(|| entry.parsed("/address")),
            _ => known.private_ipv6 = known.private_ipv6.or_else(|| entry.parsed("/address")),
        }
    }
}

fn network(tree: &Tree) -> Option<Payload> {
    let interfaces = tree.list("/network/interfaces");
    let members: Vec<Link> = interfaces.iter().filter_map(|one| Link::with_mac(&one.text("/mac")?)).collect();
    let mut link = members.first()?.clone();
    for entry in tree.list("/network/addresses") {
        let text = |pointer: &str| entry.text(pointer);
        link.add_address(text("/address").as_deref(), text("/cidr").as_deref());
        if entry.is_true("/public") {
            link.add_gateway(text("/gateway").as_deref());
        } else if text("/address_family").as_deref() == Some("4") {
            // Other servers of the project are in other networks behind this gateway; without it, they would
            // be sought on the Internet. What has no gateway has no others.
            let _ = link.add_route(Some(PRIVATE_NETWORK), text("/gateway").as_deref());
        }
    }
    link.dns = tree.texts("/dns").iter().filter_map(|text| text.parse().ok()).collect();
    bond(&members, &link)
}
