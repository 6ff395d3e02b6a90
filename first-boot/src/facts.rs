//! What a platform said, as a plan needs it.
//!
//! Knows both shapes. Refuses a platform's key that sshd could not read. Invariant: what a platform
//! does not say stays unsaid, it never becomes an empty text.

use platform::{InstanceMetadata, Payload};
use sha2::{Digest, Sha256};
use user_data::cloudconfig::order::PlanFacts;
use user_data::container::{self, FetchPolicy};
use user_data::part::PayloadPart;
use user_data::plan::step::FetchRequest;
use user_data::reading::UserDataInput;
use user_data::ssh_key;
use user_data::tokens::TokenAddresses;

use crate::digits::to_hex;
use crate::instance_data::Names;
use crate::machine::MachineAccess;

/// The instance of a machine on a platform that names none.
// Such a machine is configured again when its user-data changes. Nothing else could tell that it is meant to
// be.
pub(crate) const UNNAMED: &str = "unnamed";
/// The file by which the operator of a platform, who makes the image, allows `#include`.
const INCLUDE_SWITCH: &str = "/etc/catamaran/allow-include";

/// Who this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceIdentity {
    pub(crate) id: String,
    /// Whether the platform said so; otherwise it follows from what was handed over.
    pub(crate) is_named: bool,
}

/// The platform's name of the instance, or one that changes with its user-data.
pub(crate) fn instance_identity(provision: &InstanceMetadata) -> InstanceIdentity {
    match (&provision.instance_id, &provision.user_data) {
        (Some(id), _) => InstanceIdentity { id: id.clone(), is_named: true },
        (None, Some(user_data)) => {
            let digest = Sha256::digest(user_data.as_bytes());
            InstanceIdentity { id: format!("{UNNAMED}-{}", to_hex(&digest[..8])), is_named: false }
        }
        (None, None) => InstanceIdentity { id: UNNAMED.to_owned(), is_named: false },
    }
}

/// The facts of a plan.
pub(crate) fn plan_facts(provision: &InstanceMetadata, is_clone: bool, names: &Names) -> PlanFacts {
    let addresses = &provision.addresses;
    let keys = provision.ssh_keys.iter().flat_map(|text| ssh_key::key_lines(text));
    PlanFacts {
        addresses: TokenAddresses {
            public_ipv4: addresses.public_ipv4.map(|address| address.to_string()),
            private_ipv4: addresses.private_ipv4.map(|address| address.to_string()),
            public_ipv6: addresses.public_ipv6.map(|address| address.to_string()),
            private_ipv6: addresses.private_ipv6.map(|address| address.to_string()),
        },
        hostname: provision.hostname.clone(),
        // A bad line is left out instead of written: behind it sshd would read on, but nobody would learn why
        // a key does not work.
        keys: keys.filter(|line| ssh_key::check_key(line).is_ok()).map(str::to_owned).collect(),
        is_clone,
        launch_index: names.launch_index,
        instance: names.instance_data(),
    }
}

/// What was handed over.
pub(crate) fn gather_input(provision: &InstanceMetadata, machine: &MachineAccess) -> UserDataInput {
    let parts = |payload: &Option<Payload>, name: &str| match payload {
        Some(payload) => unpack_with(name, payload.as_bytes(), machine),
        None => Vec::new(),
    };
    UserDataInput {
        user: parts(&provision.user_data, "user-data"),
        files: parts(&provision.files, "files of the platform"),
        vendor: parts(&provision.vendor_data, "vendor-data"),
        network: network_part(provision),
    }
}

/// How the platform describes the network.
pub(crate) fn network_part(provision: &InstanceMetadata) -> Option<PayloadPart> {
    let config = provision.network_config.as_ref()?;
    Some(PayloadPart::whole("network-config", config.as_bytes()))
}

/// Whether anything that was handed over names an address of this machine, or the files that hold
/// them, so that it is worth waiting for one.
pub(crate) fn ask_for_addresses(handed: &UserDataInput) -> bool {
    let names: [&[u8]; 8] = [
        b"public_ipv4",
        b"private_ipv4",
        b"public_ipv6",
        b"private_ipv6",
        b"/run/metadata/",
        // As templates name them.
        b"public-ipv4",
        b"local_ipv4",
        b"local-ipv4",
    ];
    let holds = |content: &[u8]| {
        let content = content.to_ascii_lowercase();
        names.iter().any(|name| content.windows(name.len()).any(|window| window == *name))
    };
    let mentions = |part: &PayloadPart| {
        let mut referred = part.resolved.iter().flat_map(|resolved| &resolved.referred);
        holds(&part.content) || referred.any(|one| holds(one.text.reveal().as_bytes()))
    };
    handed.user.iter().chain(&handed.vendor).chain(&handed.files).any(mentions)
}

/// The parts of a payload, and of what it refers to.
pub(crate) fn unpack_with(name: &str, payload: &[u8], machine: &MachineAccess) -> Vec<PayloadPart> {
    let most = u64::try_from(container::MOST_BYTES).unwrap_or(u64::MAX);
    let mut fetch = |what: &FetchRequest| {
        let fetched = machine.web.get_within(&what.url, &what.headers, what.timeouts, most);
        fetched.map_err(|error| error.to_string())
    };
    let include = machine.root.path_of(INCLUDE_SWITCH).exists();
    unpack_payload(name, payload, FetchPolicy { include, fetch: Some(&mut fetch) })
}

/// The parts of a payload.
pub(crate) fn unpack_payload(name: &str, payload: &[u8], references: FetchPolicy<'_>) -> Vec<PayloadPart> {
    container::open_payload(name, payload, references)
}
