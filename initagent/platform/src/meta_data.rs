//! The `meta-data` document of `NoCloud`, which VMware's guestinfo and others have too.
//!
//! Knows instance-id, host name, keys and place. Refuses to let one wrong field cost another.
//! Invariant: an identifier keeps the text it was written with, also when that looks like a number.

use crate::{Provision, json::Tree};

/// Adds what the document says to `provision`, and gives it back for what else may be in it.
pub(crate) fn add_meta_data(provision: &mut Provision, bytes: &[u8]) -> Tree {
    let tree = match Tree::from_yaml(bytes) {
        Ok(tree) => tree,
        Err(cause) => {
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                provision.report("meta-data", &cause);
            }
            return Tree::default();
        }
    };
    let either = |one: &str, other: &str| tree.text(one).or_else(|| tree.text(other));
    provision.instance_id = either("/instance-id", "/instance_id");
    let local = either("/local-hostname", "/local_hostname");
    provision.set_hostname(local.or_else(|| tree.text("/hostname")));
    for key in tree.texts("/public-keys").iter().chain(&tree.texts("/public_keys")) {
        provision.add_keys(key);
    }
    provision.meta_data = tree.meta_data();
    provision.region = tree.text("/region");
    provision.zone = either("/availability-zone", "/availability_zone");
    tree
}
