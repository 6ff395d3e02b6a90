//! `UpCloud`: one JSON document, and the user-data beside it.
//!
//! Knows the document. Refuses to touch interfaces that all use DHCP: the image's default does.
//! Invariant: a server whose owner has not switched the service on is reported as that.

use crate::{
    FetchError, Host, Payload, Platform, Provision, Web,
    json::Tree,
    netplan::{Link, ethernets},
    one_document::{self, Places},
    registry::Evidence,
};

const BASES: [&str; 1] = ["http://169.254.169.254"];
const PLACES: Places = Places {
    instance_id: &["/instance_id"],
    hostname: &["/hostname"],
    region: &["/region"],
    keys: &["/public_keys"],
    vendor_data: &["/vendor_data"],
    ..Places::NONE
};

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(host, &[("sys_vendor", "UpCloud")])
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let service = web.service(&BASES);
    let document = one_document::ask(Platform::UpCloud, &service, "/metadata/v1.json")?;
    let mut provision = facts(&document);
    provision.take_user_data(service.get_data("/metadata/v1/user_data"));
    Ok(provision)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let (mut provision, tree) = one_document::read(Platform::UpCloud, document, &PLACES);
    let interfaces = tree.list("/network/interfaces");
    let address_of = |kind: &str, family: &str| {
        let of_kind = |one: &&Tree| one.text("/type").as_deref() == Some(kind);
        let addresses = interfaces.iter().filter(of_kind).flat_map(|one| one.list("/ip_addresses"));
        let mut of_family = addresses.filter(|one| one.text("/family").as_deref() == Some(family));
        of_family.find_map(|one| one.text("/address"))
    };
    provision.addresses.public_ipv4 = address_of("public", "IPv4").and_then(|text| text.parse().ok());
    provision.addresses.public_ipv6 = address_of("public", "IPv6").and_then(|text| text.parse().ok());
    let private = address_of("private", "IPv4").or_else(|| address_of("utility", "IPv4"));
    provision.addresses.private_ipv4 = private.and_then(|text| text.parse().ok());
    provision.attribute("UPCLOUD_HOSTNAME", provision.hostname.clone());
    provision.attribute("UPCLOUD_INSTANCE_ID", provision.instance_id.clone());
    provision.attribute("UPCLOUD_REGION", provision.region.clone());
    provision.network_config = network(&interfaces);
    provision
}

fn network(interfaces: &[Tree]) -> Option<Payload> {
    let mut all_automatic = true;
    let mut link_of = |interface: &Tree| {
        let mut link = Link::with_mac(&interface.text("/mac")?)?;
        for address in interface.list("/ip_addresses") {
            let is_v6 = address.text("/family").as_deref() == Some("IPv6");
            if address.is_true("/dhcp") {
                link.dhcp4 |= !is_v6;
                link.dhcp6 |= is_v6;
                continue;
            }
            all_automatic = false;
            let network = address.text("/network");
            let prefix =
                network.as_deref().and_then(|network| network.split_once('/')).map(|(_, prefix)| prefix);
            let floating = address.is_true("/floating").then_some(if is_v6 { "128" } else { "32" });
            link.add_address(address.text("/address").as_deref(), prefix.or(floating));
            link.add_gateway(address.text("/gateway").as_deref());
            link.dns.extend(
                address.texts("/dns").iter().filter_map(|text| text.parse::<std::net::IpAddr>().ok()),
            );
        }
        Some(link)
    };
    let links: Vec<Link> = interfaces.iter().filter_map(&mut link_of).collect();
    if all_automatic { None } else { ethernets(&links) }
}
