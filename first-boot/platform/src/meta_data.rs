//! The `meta-data` document of `NoCloud`, which VMware's guestinfo and others have too.
//!
//! Knows instance-id, host name, keys and place. Refuses to let one wrong field cost another.
//! Invariant: an identifier keeps the text it was written with, also when that looks like a number.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>.

use crate::{InstanceMetadata, json::DocumentTree};

/// Adds what the document says to `provision`, and gives it back for what else may be in it.
pub(crate) fn add_meta_data(provision: &mut InstanceMetadata, bytes: &[u8]) -> DocumentTree {
    let tree = match DocumentTree::from_yaml(bytes) {
        Ok(tree) => tree,
        Err(cause) => {
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                provision.report_problem("meta-data", &cause);
            }
            return DocumentTree::default();
        }
    };
    let either = |one: &str, other: &str| tree.text_at(one).or_else(|| tree.text_at(other));
    provision.instance_id = either("/instance-id", "/instance_id");
    let local = either("/local-hostname", "/local_hostname");
    // Hetzner and some tools for `cidata` write `hostname`. cloud-init's own name goes before it.
    provision.set_hostname(local.or_else(|| tree.text_at("/hostname")));
    for key in tree.texts_below("/public-keys").iter().chain(&tree.texts_below("/public_keys")) {
        provision.add_keys(key);
    }
    provision.meta_data = tree.meta_data();
    provision.region = tree.text_at("/region");
    provision.zone = either("/availability-zone", "/availability_zone");
    tree
}
