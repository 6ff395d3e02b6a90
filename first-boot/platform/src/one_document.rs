//! The clouds that tell everything in one JSON document.
//!
//! Knows the facts that each such document has, wherever they stand in it. Refuses to know addresses, which
//! each cloud writes in its own way. Invariant: a document that cannot be read is a problem of its own, and
//! as empty as one that says nothing.

use crate::{FetchError, InstanceMetadata, Payload, Platform, json::DocumentTree, web::MetadataService};

/// Where the facts stand, as JSON pointers; the first of several that is there counts.
pub(crate) struct FieldPaths {
    pub(crate) instance_id: &'static [&'static str],
    pub(crate) hostname: &'static [&'static str],
    pub(crate) region: &'static [&'static str],
    pub(crate) zone: &'static [&'static str],
    pub(crate) instance_type: &'static [&'static str],
    /// Keys in whatever lists and maps, but nothing else.
    pub(crate) keys: &'static [&'static str],
    pub(crate) user_data: &'static [&'static str],
    pub(crate) vendor_data: &'static [&'static str],
}

impl FieldPaths {
    /// Nowhere.
    pub(crate) const NONE: Self = Self {
        instance_id: &[],
        hostname: &[],
        region: &[],
        zone: &[],
        instance_type: &[],
        keys: &[],
        user_data: &[],
        vendor_data: &[],
    };
}

/// The document at `path`, without which the platform knows nothing of this machine.
pub(crate) fn fetch_document(
    platform: Platform,
    service: &MetadataService<'_>,
    path: &str,
) -> Result<Vec<u8>, FetchError> {
    service.get_item(path).map_err(platform.fetch_failed())?.ok_or_else(|| platform.no_metadata())
}

/// The facts of a document, and the document for what else is in it; pure.
pub(crate) fn read(
    platform: Platform,
    document: &[u8],
    places: &FieldPaths,
) -> (InstanceMetadata, DocumentTree) {
    let mut provision = InstanceMetadata::new(platform);
    let parsed = DocumentTree::from_json(document).map(Some);
    let tree = provision.value_or_report("metadata", parsed).unwrap_or_default();
    let text = |pointers: &[&str]| pointers.iter().find_map(|pointer| tree.text_at(pointer));
    let content = |pointers: &[&str]| pointers.iter().find_map(|pointer| tree.content_at(pointer));
    provision.meta_data = tree.meta_data();
    provision.instance_id = text(places.instance_id);
    provision.set_hostname(text(places.hostname));
    provision.region = text(places.region);
    provision.zone = text(places.zone);
    provision.instance_type = text(places.instance_type);
    provision.user_data = content(places.user_data).and_then(Payload::from_bytes);
    provision.vendor_data = content(places.vendor_data).and_then(Payload::from_bytes);
    for key in places.keys.iter().flat_map(|pointer| tree.texts_below(pointer)) {
        provision.add_keys(&key);
    }
    (provision, tree)
}
