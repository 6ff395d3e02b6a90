//! Scaleway: one JSON document, and user-data that is given only to privileged source ports.
//!
//! Knows that the source port proves to Scaleway that root asks. Refuses to ask from any other.
//! Invariant: keys hidden in tags are read the same way as plain ones.

use crate::{
    FetchError, Host, Payload, Platform, Provision, Web, WebError,
    json::Tree,
    one_document::{self, Places},
    registry::Evidence,
};

const BASES: [&str; 2] = ["http://169.254.42.42", "http://[fd00:42::42]"];
const PLACES: Places = Places {
    instance_id: &["/id"],
    hostname: &["/hostname"],
    zone: &["/zone", "/location/zone_id"],
    instance_type: &["/commercial_type"],
    ..Places::NONE
};

pub(crate) fn detect(host: &Host) -> Option<Evidence> {
    Evidence::firmware(host, &[("sys_vendor", "Scaleway")]).or_else(|| {
        let named = host.command_line().iter().any(|word| word == "scaleway");
        let found = named || host.exists("/var/run/scaleway");
        found.then(|| Evidence::network("kernel command line or /var/run: scaleway"))
    })
}

pub(crate) fn fetch(_: &Host, web: &Web) -> Result<Provision, FetchError> {
    let service = web.service(&BASES);
    let document = one_document::ask(Platform::Scaleway, &service, "/conf?format=json")?;
    let mut provision = facts(&document);
    let privileged = service.with_privileged_port();
    provision.take_user_data(privileged.get_data("/user_data/cloud-init"));
    let vendor_data = privileged.get_data("/vendor_data/cloud-init");
    provision.vendor_data = provision.take("vendor-data", vendor_data).and_then(Payload::from_bytes);
    Ok(provision)
}

/// Tells Scaleway that the machine is up.
pub(crate) fn check_in(web: &Web) -> Result<(), WebError> {
    let headers = [("Content-Type", "application/json")];
    let told = web.service(&BASES).with_privileged_port().send(
        "PATCH",
        "/state",
        &headers,
        br#"{"state_detail":"booted"}"#,
    );
    told.map(drop)
}

/// Reads the document; pure.
pub(crate) fn facts(document: &[u8]) -> Provision {
    let (mut provision, tree) = one_document::read(Platform::Scaleway, document, &PLACES);
    provision.region = provision.zone.as_deref().and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned()));
    for key in tree.list("/ssh_public_keys").iter().filter_map(|entry| entry.text("/key")) {
        provision.add_keys(&key);
    }
    for key in tree.texts("/tags").iter().filter_map(|tag| tag.strip_prefix("AUTHORIZED_KEY=")) {
        provision.add_keys(&key.replace('_', " "));
    }
    let address_of = |family: &str| {
        let of_family = |entry: &&Tree| entry.text("/family").as_deref() == Some(family);
        tree.list("/public_ips").iter().find(of_family).and_then(|entry| entry.text("/address"))
    };
    let public_ipv4 = tree.text("/public_ip/address").or_else(|| address_of("inet"));
    let public_ipv6 = tree.text("/ipv6/address").or_else(|| address_of("inet6"));
    provision.addresses.public_ipv4 = public_ipv4.and_then(|text| text.parse().ok());
    provision.addresses.public_ipv6 = public_ipv6.and_then(|text| text.parse().ok());
    provision.addresses.private_ipv4 = tree.parsed("/private_ip");
    provision.attribute("SCALEWAY_HOSTNAME", provision.hostname.clone());
    provision.attribute("SCALEWAY_INSTANCE_ID", provision.instance_id.clone());
    provision.attribute("SCALEWAY_INSTANCE_TYPE", provision.instance_type.clone());
    provision.attribute("SCALEWAY_IPV4_PRIVATE", provision.addresses.private_ipv4);
    provision.attribute("SCALEWAY_IPV4_PUBLIC", provision.addresses.public_ipv4);
    provision.attribute("SCALEWAY_IPV6_PUBLIC", provision.addresses.public_ipv6);
    provision.attribute("SCALEWAY_ZONE_ID", tree.text("/location/zone_id"));
    provision
}
