//! Akamai, formerly Linode: four documents, read with a short-lived token.
//!
//! Knows the token and the documents. Refuses to set addresses: DHCP and router advertisements do.
//! Invariant: user-data is base64 on the wire and plain in the [`InstanceMetadata`].
//!
//! Documentation: <https://techdocs.akamai.com/cloud-computing/docs/metadata-service-api>.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    one_document::{self, FieldPaths},
    web::TokenScheme,
};

// Both are in Akamai's documentation. A machine without IPv4 reaches the second only.
const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:a9fe:a9fe::1]"];
// 300 seconds outlast everything that one boot may ask. A longer life would only help who steals the token.
const TOKEN: TokenScheme =
    TokenScheme { path: "/v1/token", ask: ("Metadata-Token-Expiry-Seconds", "300"), send: "Metadata-Token" };
const PLACES: FieldPaths = FieldPaths {
    instance_id: &["/id"],
    // The document has no host name. The label is the name that the owner gave the machine, as cloud-init
    // takes it.
    hostname: &["/label"],
    region: &["/region"],
    instance_type: &["/type"],
    ..FieldPaths::NONE
};

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    // Linode became Akamai, and both words are found in firmware. cloud-init looks for both, too.
    PlatformEvidence::from_firmware(host, &[("sys_vendor", "Linode"), ("sys_vendor", "Akamai")])
}

pub(crate) fn fetch(_: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    // Without `Accept` the service answers in plain text, whose shape is not specified.
    let service = web.metadata_service(&BASES).with_token(TOKEN).with_header("Accept", "application/json");
    let document = one_document::fetch_document(Platform::Akamai, &service, "/v1/instance")?;
    let mut provision = facts(&document);
    let keys = service.get_item("/v1/ssh-keys");
    if let Some(document) = provision.value_or_report("ssh keys", keys) {
        add_keys(&mut provision, &document);
    }
    let network = service.get_item("/v1/network");
    if let Some(document) = provision.value_or_report("network", network) {
        add_addresses(&mut provision, &document);
    }
    let user_data = service.get_data("/v1/user-data");
    if let Some(bytes) = provision.value_or_report("user-data", user_data) {
        let packed: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = BASE64_STANDARD.decode(packed).map(Some).map_err(|_| "it is not base64");
        provision.take_user_data(decoded);
    }
    Ok(provision)
}

/// Reads the instance's document; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let (mut provision, tree) = one_document::read(Platform::Akamai, document, &PLACES);
    provision.set_attribute("AKAMAI_INSTANCE_ID", provision.instance_id.clone());
    provision.set_attribute("AKAMAI_INSTANCE_HOST_UUID", tree.text_at("/host_uuid"));
    provision.set_attribute("AKAMAI_INSTANCE_LABEL", tree.text_at("/label"));
    provision.set_attribute("AKAMAI_INSTANCE_REGION", provision.region.clone());
    provision.set_attribute("AKAMAI_INSTANCE_TYPE", provision.instance_type.clone());
    // afterburn joins the tags by colons.
    provision.set_attribute("AKAMAI_INSTANCE_TAGS", Some(tree.texts_below("/tags").join(":")));
    provision
}

/// Keys come by user: `{"users": {"root": ["ssh-..."]}}`.
fn add_keys(provision: &mut InstanceMetadata, document: &[u8]) {
    let parsed = DocumentTree::from_json(document).map(Some);
    for key in provision.value_or_report("ssh keys", parsed).unwrap_or_default().texts_below("/users") {
        provision.add_keys(&key);
    }
}

fn add_addresses(provision: &mut InstanceMetadata, document: &[u8]) {
    let parsed = DocumentTree::from_json(document).map(Some);
    let Some(tree) = provision.value_or_report("network", parsed) else { return };
    let first = |pointer: &str| {
        let address = tree.texts_below(pointer).into_iter().next()?;
        address.split('/').next().map(str::to_owned)
    };
    let parse_v4 = |text: Option<String>| text.and_then(|text| text.parse().ok());
    provision.addresses.public_ipv4 = parse_v4(first("/ipv4/public"));
    provision.addresses.private_ipv4 = parse_v4(first("/ipv4/private"));
    provision.addresses.public_ipv6 = first("/ipv6/slaac").and_then(|text| text.parse().ok());
    for (name, pointer) in [
        ("PUBLIC_IPV4", "/ipv4/public"),
        ("PRIVATE_IPV4", "/ipv4/private"),
        ("SHARED_IPV4", "/ipv4/shared"),
        ("IPV6_RANGE", "/ipv6/ranges"),
        ("IPV6_SHARED_RANGE", "/ipv6/shared_ranges"),
    ] {
        for (index, address) in tree.texts_below(pointer).iter().enumerate() {
            provision.set_attribute(&format!("AKAMAI_{name}_{index}"), Some(address));
        }
    }
    provision.set_attribute("AKAMAI_IPV6_SLAAC", tree.text_at("/ipv6/slaac"));
    provision.set_attribute("AKAMAI_IPV6_LINK_LOCAL", tree.text_at("/ipv6/link_local"));
}
