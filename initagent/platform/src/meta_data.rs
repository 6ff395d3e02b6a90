//! The `meta-data` document of `NoCloud`, which VMware's guestinfo and others have too.
//!
//! Knows instance-id, host name, keys and place. Refuses to let one wrong field cost another.
//! Invariant: an identifier keeps the text it was written with, also when that looks like a number.

use serde::Deserialize;

use crate::{
    Provision,
    json::{Tree, yaml},
};

/// Fields whose exact text matters: a number such as `1e5` is a fine identifier.
#[derive(Debug, Default, Deserialize)]
struct Identity {
    #[serde(rename = "instance-id", alias = "instance_id")]
    instance_id: Option<String>,
    #[serde(rename = "local-hostname", alias = "local_hostname")]
    local_hostname: Option<String>,
    hostname: Option<String>,
}

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
    let exact: Identity = yaml(bytes).unwrap_or_default();
    let either = |one: &str, other: &str| tree.text(one).or_else(|| tree.text(other));
    provision.instance_id = exact.instance_id.or_else(|| either("/instance-id", "/instance_id"));
    let local = exact.local_hostname.or_else(|| either("/local-hostname", "/local_hostname"));
    provision.set_hostname(local.or(exact.hostname).or_else(|| tree.text("/hostname")));
    for key in tree.texts("/public-keys").iter().chain(&tree.texts("/public_keys")) {
        provision.add_keys(key);
    }
    provision.region = tree.text("/region");
    provision.zone = either("/availability-zone", "/availability_zone");
    tree
}
