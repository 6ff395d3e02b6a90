//! OpenStack: a folder of JSON documents, over HTTP here and on a disk in [`super::config_drive`].
//!
//! Knows the documents and that user-data lies beside them unchanged. Refuses the formats before
//! `openstack/latest`. Invariant: both ways of reading make the same facts of the same documents.
//!
//! Documentation: <https://docs.openstack.org/nova/latest/user/metadata.html>, and for the operator's two
//! documents <https://docs.openstack.org/nova/latest/admin/vendordata.html>.

pub(crate) mod content;

use serde_json::{Value, json};

use self::content::ReadContent;

use crate::{
    FetchError, Host, InstanceMetadata, MetadataWeb, Payload, Platform,
    evidence::PlatformEvidence,
    json::DocumentTree,
    one_document,
    web::{MAX_METADATA, MAX_USER_DATA, link_local_bases},
};

// Neutron answers at IPv6 as well, but at a link-local address, which needs the interface:
// `link_local_bases`.
const BASES: [&str; 1] = ["http://169.254.169.254"];
/// The items of the EC2-like tree beside OpenStack's own, by afterburn's attribute names.
const ITEMS: [(&str, &str); 5] = [
    ("OPENSTACK_HOSTNAME", "hostname"),
    ("OPENSTACK_INSTANCE_ID", "instance-id"),
    ("OPENSTACK_INSTANCE_TYPE", "instance-type"),
    ("OPENSTACK_IPV4_LOCAL", "local-ipv4"),
    ("OPENSTACK_IPV4_PUBLIC", "public-ipv4"),
];

/// The documents, as far as they are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetadataDocuments {
    pub(crate) meta_data: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) vendor_data: Option<Vec<u8>>,
    pub(crate) vendor_data2: Option<Vec<u8>>,
    pub(crate) network_data: Option<Vec<u8>>,
    pub(crate) ec2_meta_data: Option<Vec<u8>>,
}

pub(crate) fn detect(host: &Host) -> Option<PlatformEvidence> {
    let signs = [
        ("product_name", "OpenStack Nova"),
        ("product_name", "OpenStack Compute"),
        // Where the hypervisor keeps the product's name for itself, such as VMware.
        ("chassis_asset_tag", "OpenStack Nova"),
        ("chassis_asset_tag", "OpenStack Compute"),
        // These clouds replaced the product's name by their own. cloud-init finds them by the same tags.
        ("chassis_asset_tag", "OpenTelekomCloud"),
        ("chassis_asset_tag", "SAP CCloud VM"),
        ("chassis_asset_tag", "HUAWEICLOUD"),
        ("chassis_asset_tag", "Samsung Cloud Platform"),
    ];
    PlatformEvidence::from_firmware(host, &signs)
}

pub(crate) fn fetch(host: &Host, web: &MetadataWeb) -> Result<InstanceMetadata, FetchError> {
    let service = web.metadata_service(&BASES).or_at(link_local_bases(host));
    let meta_data =
        one_document::fetch_document(Platform::OpenStack, &service, "/openstack/latest/meta_data.json")?;
    let mut provision = InstanceMetadata::new(Platform::OpenStack);
    let read = |file: &str, limit| match limit {
        MAX_USER_DATA => service.get_data(&format!("/openstack/latest/{file}")),
        _ => service.get_item(&format!("/openstack/latest/{file}")),
    };
    let documents = MetadataDocuments { meta_data: Some(meta_data), ..read_documents(&mut provision, read) };
    let mut content =
        |path: &str| service.get_data(&format!("/openstack/{path}")).map_err(|error| error.to_string());
    add_facts(&mut provision, documents, &mut content);
    for (name, path) in ITEMS {
        let value = service.get_text(&format!("/latest/meta-data/{path}"));
        // Not every OpenStack has the EC2-like tree.
        provision.set_attribute(name, value.ok().flatten());
    }
    let address = |name: &str| provision.attributes.get(name)?.split_whitespace().next()?.parse().ok();
    let (local, public) = (address("OPENSTACK_IPV4_LOCAL"), address("OPENSTACK_IPV4_PUBLIC"));
    provision.addresses.private_ipv4 = local.or(provision.addresses.private_ipv4);
    provision.addresses.public_ipv4 = public.or(provision.addresses.public_ipv4);
    provision.instance_type = provision.attributes.get("OPENSTACK_INSTANCE_TYPE").cloned();
    Ok(provision)
}

/// Reads every document but `meta_data.json`; one that cannot be read is a problem of its own.
pub(crate) fn read_documents<E: std::fmt::Display>(
    provision: &mut InstanceMetadata,
    mut read: impl FnMut(&str, u64) -> Result<Option<Vec<u8>>, E>,
) -> MetadataDocuments {
    let mut file = |item: &str, name: &str, limit| provision.value_or_report(item, read(name, limit));
    MetadataDocuments {
        user_data: file("user-data", "user_data", MAX_USER_DATA),
        vendor_data: file("vendor-data", "vendor_data.json", MAX_METADATA),
        vendor_data2: file("vendor-data2", "vendor_data2.json", MAX_METADATA),
        network_data: file("network-config", "network_data.json", MAX_METADATA),
        ..MetadataDocuments::default()
    }
}

/// The facts of a `meta_data.json`; pure.
pub(crate) fn facts(document: &[u8]) -> InstanceMetadata {
    let mut provision = InstanceMetadata::new(Platform::OpenStack);
    let documents = MetadataDocuments { meta_data: Some(document.to_vec()), ..MetadataDocuments::default() };
    add_facts(&mut provision, documents, &mut |_| Ok(None));
    provision
}

/// Turns the documents into facts; pure.
pub(crate) fn add_facts(
    provision: &mut InstanceMetadata,
    documents: MetadataDocuments,
    content: ReadContent<'_>,
) {
    provision.user_data = documents.user_data.and_then(Payload::from_bytes);
    // Its shape is told from cloud-init's versions where it is read: it has `links` and no `version`.
    provision.network_config = documents.network_data.and_then(Payload::from_bytes);
    provision.vendor_data = vendor_data(&[documents.vendor_data, documents.vendor_data2]);
    if let Some(document) = documents.meta_data {
        add_meta_data(provision, &document, content);
    }
    let tree = documents
        .ec2_meta_data
        .and_then(|document| DocumentTree::from_json(&document).ok())
        .unwrap_or_default();
    for (name, path) in ITEMS {
        provision.set_attribute(name, tree.text_at(&format!("/{path}")));
    }
    provision.addresses.private_ipv4 = tree.parse_at("/local-ipv4");
    provision.addresses.public_ipv4 = tree.parse_at("/public-ipv4");
    provision.instance_type = tree.text_at("/instance-type");
    provision.set_attribute("OPENSTACK_INSTANCE_UUID", provision.instance_id.clone());
}

fn add_meta_data(provision: &mut InstanceMetadata, document: &[u8], content: ReadContent<'_>) {
    let parsed = DocumentTree::from_json(document).map(Some);
    let Some(tree) = provision.value_or_report("meta-data", parsed) else { return };
    provision.meta_data = tree.meta_data();
    provision.instance_id = tree.text_at("/uuid");
    provision.set_hostname(tree.text_at("/hostname").or_else(|| tree.text_at("/name")));
    provision.zone = tree.text_at("/availability_zone");
    // `keys` repeats `public_keys` with a type. Keys of type `x509` are for Windows.
    let listed =
        tree.list_at("/keys").into_iter().filter(|key| key.text_at("/type").as_deref() == Some("ssh"));
    let listed: Vec<String> = listed.filter_map(|key| key.text_at("/data")).collect();
    for key in tree.texts_below("/public_keys").iter().chain(&listed) {
        provision.add_keys(key);
    }
    provision.set_attribute("OPENSTACK_HOSTNAME", provision.hostname.clone());
    content::add_contents(provision, &tree, content);
}

/// The operator's two documents for cloud-init, the same for each machine and made for this one; the second
/// goes over the first, as later parts go over earlier ones.
fn vendor_data(documents: &[Option<Vec<u8>>; 2]) -> Option<Payload> {
    let mut parts: Vec<String> = documents.iter().flatten().flat_map(|bytes| parts_of(bytes)).collect();
    parts.retain(|part| !part.trim().is_empty());
    if parts.len() < 2 {
        return parts.pop().map(String::into_bytes).and_then(Payload::from_bytes);
    }
    // An archive keeps the parts apart, so that a script beside a cloud-config stays a script.
    let entries: Vec<Value> = parts.iter().map(|part| json!({"content": part})).collect();
    // JSON is YAML.
    Payload::from_bytes(format!("#cloud-config-archive\n{}\n", Value::Array(entries)).into_bytes())
}

/// A document is a text, a list of texts, or has either under the key `cloud-init`.
fn parts_of(document: &[u8]) -> Vec<String> {
    if let Ok(Value::String(text)) = serde_json::from_slice(document) {
        return vec![text];
    }
    let tree = DocumentTree::from_json(document).unwrap_or_default();
    [tree.contents_at(""), tree.contents_at("/cloud-init")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(first: &str, second: &str) -> Option<String> {
        let payload = vendor_data(&[Some(first.into()), Some(second.into())])?;
        Some(String::from_utf8(payload.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn vendor_data_of_one_part_stays_as_it_is() {
        assert_eq!(both("\"#!/bin/sh\\n\"", "{}").as_deref(), Some("#!/bin/sh\n"));
        assert_eq!(both("{\"cloud-init\": null}", "{\"cloud-init\": \"a\"}").as_deref(), Some("a"));
        assert_eq!(both("{}", "not json"), None);
    }

    #[test]
    fn vendor_data_of_several_parts_becomes_an_archive() {
        assert_eq!(
            both("[\"a\", \"b\"]", "{\"cloud-init\": [\"c\"], \"d\": \"e\"}").as_deref(),
            Some("#cloud-config-archive\n[{\"content\":\"a\"},{\"content\":\"b\"},{\"content\":\"c\"}]\n")
        );
    }
}
