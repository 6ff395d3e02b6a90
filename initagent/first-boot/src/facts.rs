//! What a platform said, as a plan needs it.
//!
//! Knows both shapes. Refuses a platform's key that sshd could not read. Invariant: what a platform
//! does not say stays unsaid, it never becomes an empty text.

use platform::{Payload, Provision};
use sha2::{Digest, Sha256};
use user_data::part::Part;
use user_data::plan::order::Facts;
use user_data::reading::Handed;
use user_data::ssh_key;
use user_data::tokens::Addresses;

use crate::digits::hex;

/// The instance of a machine on a platform that names none.
const UNNAMED: &str = "unnamed";

/// Who this machine is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    /// Whether the platform said so; otherwise it follows from what was handed over.
    pub(crate) is_named: bool,
}

/// The platform's name of the instance, or one that changes with its user-data.
pub(crate) fn instance(provision: &Provision) -> Instance {
    match (&provision.instance_id, &provision.user_data) {
        (Some(id), _) => Instance { id: id.clone(), is_named: true },
        (None, Some(user_data)) => {
            let digest = Sha256::digest(user_data.as_bytes());
            Instance { id: format!("{UNNAMED}-{}", hex(&digest[..8])), is_named: false }
        }
        (None, None) => Instance { id: UNNAMED.to_owned(), is_named: false },
    }
}

/// The facts of a plan.
pub(crate) fn of(provision: &Provision, is_clone: bool) -> Facts {
    let addresses = &provision.addresses;
    let keys = provision.ssh_keys.iter().flat_map(|text| ssh_key::lines(text));
    Facts {
        addresses: Addresses {
            public_ipv4: addresses.public_ipv4.map(|address| address.to_string()),
            private_ipv4: addresses.private_ipv4.map(|address| address.to_string()),
            public_ipv6: addresses.public_ipv6.map(|address| address.to_string()),
            private_ipv6: addresses.private_ipv6.map(|address| address.to_string()),
        },
        hostname: provision.hostname.clone(),
        keys: keys.filter(|line| ssh_key::check(line).is_ok()).map(str::to_owned).collect(),
        is_clone,
    }
}

/// What was handed over.
pub(crate) fn handed(provision: &Provision) -> Handed {
    let parts = |payload: &Option<Payload>, name: &str| match payload {
        Some(payload) => unpack(name, payload.as_bytes()),
        None => Vec::new(),
    };
    Handed {
        user: parts(&provision.user_data, "user-data"),
        vendor: parts(&provision.vendor_data, "vendor-data"),
    }
}

/// The parts of a payload.
pub(crate) fn unpack(name: &str, payload: &[u8]) -> Vec<Part> {
    vec![Part::whole(name, payload)]
}
