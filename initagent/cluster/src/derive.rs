//! Derives every key of a cluster from its secret and its name.
//!
//! Knows the labels, one for each use. Refuses to keep a key. Invariant: a key tells nothing of the secret or
//! of another key, so that a program is given only the one that it needs.

use std::fmt::Write as _;

use ring::hmac::{Context, HMAC_SHA256, Key};
use user_data::cluster::ClusterDefinition;

/// Bytes of a key: an Ed25519 seed, an HMAC-SHA256 key.
pub const KEY_BYTES: usize = 32;
/// Separates these keys from those of any other program that is given the same bytes.
const SALT: &[u8] = b"catamaran cluster, 1";

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Signs certificates of etcd's clients, and of what they connect to.
    ClientAuthority,
    /// Authenticates messages on the local link.
    LinkMessages,
    /// Signs certificates of etcd's members for each other.
    PeerAuthority,
    /// Signs certificates of people who may look at fleet.
    ReaderAuthority,
    /// Names the cluster in etcd, so that members of two clusters refuse each other.
    Token,
}

impl KeyPurpose {
    fn derivation_label(self) -> &'static [u8] {
        match self {
            Self::ClientAuthority => b"authority of etcd's clients",
            Self::LinkMessages => b"messages on the local link",
            Self::PeerAuthority => b"authority of etcd's members",
            Self::ReaderAuthority => b"authority of fleet's readers",
            Self::Token => b"token of the cluster",
        }
    }
}

/// The key of a cluster for one purpose: HKDF-SHA256 (RFC 5869).
///
/// One digest is enough, so that it is two HMACs. `ring::hkdf` gives the same, and an error that cannot happen.
#[must_use]
pub fn derive_key(definition: &ClusterDefinition, purpose: KeyPurpose) -> [u8; KEY_BYTES] {
    let extracted = hmac_sha256(SALT, &[definition.secret.secret_bytes()]);
    // A name has no byte of zero, so that no name and label read as another name and label.
    hmac_sha256(&extracted, &[definition.name.as_bytes(), b"\0", purpose.derivation_label(), &[1]])
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut context = Context::with_key(&Key::new(HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut code = [0; KEY_BYTES];
    code.copy_from_slice(context.sign().as_ref());
    code
}

/// Digits for a name that may be seen.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        // Writing into a text does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use user_data::cluster::FindMethod;
    use user_data::cluster::secret::ClusterSecret;

    use super::*;

    /// A cluster for tests, whose secret is the bytes from `first` on.
    pub(crate) fn definition(name: &str, first: u8) -> ClusterDefinition {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(first..).for_each(|(byte, value)| *byte = value);
        ClusterDefinition {
            name: name.to_owned(),
            size: 3,
            secret: ClusterSecret::from_bytes(&bytes),
            find: FindMethod::Lan,
        }
    }

    #[test]
    fn keys_of_running_clusters_stay() {
        let key = |purpose| encode_hex(&derive_key(&definition("harbour", 0), purpose));

        // Computed with Python's hmac by RFC 5869; a change here locks machines of one cluster out of it.
        assert_eq!(
            key(KeyPurpose::ClientAuthority),
            "49feac9dac2e93ff6d2bc371b0fb1dcc057f7441e820c8459298f956e1cea3ff"
        );
        assert_eq!(
            key(KeyPurpose::LinkMessages),
            "e77f8d89e7aca97944d76dd0dba47e001895c7d56c99f02b06095ae071324285"
        );
        assert_eq!(
            key(KeyPurpose::PeerAuthority),
            "0228d8bffb7119a6b4d0046a8b2092eda32ba19c519493d01c8e6025a62250a5"
        );
        assert_eq!(
            key(KeyPurpose::Token),
            "ec9d217ed28b89fd8805a96ff84764b1c6ad1c6dab4298bbf8fb07c054f3c353"
        );
    }

    #[test]
    fn each_name_secret_and_purpose_has_its_own_key() {
        let purposes = [
            KeyPurpose::ClientAuthority,
            KeyPurpose::LinkMessages,
            KeyPurpose::PeerAuthority,
            KeyPurpose::ReaderAuthority,
            KeyPurpose::Token,
        ];
        let definitions = [definition("harbour", 0), definition("harbour", 1), definition("quay", 0)];
        let keys: BTreeSet<_> =
            definitions.iter().flat_map(|one| purposes.map(|purpose| derive_key(one, purpose))).collect();

        assert_eq!(keys.len(), 15);
    }
}
