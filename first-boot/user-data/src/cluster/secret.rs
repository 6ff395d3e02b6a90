//! The form of a cluster's secret: how it is written, and why a text is none.
//!
//! Knows 256 bits and a checksum. Refuses to make bits: the caller brings them. Invariant: what is accepted
//! was made by `initagent cluster secret`, or by somebody who took great pains.
//!
//! Words that people think up are refused whatever their length. From the secret follows the key of the
//! cluster's authority, and whoever sees one certificate may try guesses against it for as long as they like.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// How many bytes of it are random.
pub const RANDOM_BYTES: usize = 32;
/// Says in a diff or a log of somebody else's program what the text is, so that scanners for secrets find it.
const PREFIX: &str = "catamaran-cluster-";
/// Catches every single slip of the pen, and all but one of four thousand million other ones.
const CHECK_BYTES: usize = 4;
/// Of 32 random bytes about 30 differ; fewer than 16 do once in 10^20 secrets, or where nothing was random.
const LEAST_DIFFERENT: usize = 16;

/// The secret of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    text: Secret<String>,
    bytes: [u8; RANDOM_BYTES],
}

/// Why a text is no secret. No message shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretFlaw {
    /// Not in the form.
    Form,
    /// The checksum does not fit.
    Slip,
    /// Its bytes repeat.
    Weak,
}

impl ClusterSecret {
    /// The secret that these random bytes are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; RANDOM_BYTES]) -> Self {
        let all = [&bytes[..], &secret_checksum(bytes)[..]].concat();
        Self { text: Secret::new([PREFIX, &URL_SAFE_NO_PAD.encode(all)].concat()), bytes: *bytes }
    }

    /// Reads a secret.
    pub fn parse(text: &str) -> Result<Self, SecretFlaw> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(SecretFlaw::Form)?;
        let all = URL_SAFE_NO_PAD.decode(digits).map_err(|_| SecretFlaw::Form)?;
        let (bytes, check) = all.split_first_chunk::<RANDOM_BYTES>().ok_or(SecretFlaw::Form)?;
        if check.len() != CHECK_BYTES {
            return Err(SecretFlaw::Form);
        }
        if check != secret_checksum(bytes) {
            return Err(SecretFlaw::Slip);
        }
        match bytes.iter().collect::<BTreeSet<_>>().len() {
            different if different < LEAST_DIFFERENT => Err(SecretFlaw::Weak),
            _ => Ok(Self::from_bytes(bytes)),
        }
    }

    /// The text of it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.text.reveal()
    }

    /// The random bytes, from which keys are derived.
    #[must_use]
    pub fn secret_bytes(&self) -> &[u8; RANDOM_BYTES] {
        &self.bytes
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

impl fmt::Display for SecretFlaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Form => "is not a secret of a cluster",
            Self::Slip => "has a mistake in it: its checksum does not fit",
            Self::Weak => "is not random: most of its bytes are the same",
        })
    }
}

fn secret_checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(b"catamaran cluster secret").chain_update(bytes).finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes for tests: 0 to 31.
    pub(crate) const BYTES: [u8; RANDOM_BYTES] = {
        let mut bytes = [0; RANDOM_BYTES];
        let mut at = 0;
        while at < RANDOM_BYTES {
            #[expect(clippy::cast_possible_truncation, reason = "below 32")]
            let byte = at as u8;
            bytes[at] = byte;
            at += 1;
        }
        bytes
    };

    #[test]
    fn the_form_stays() {
        let secret = ClusterSecret::from_bytes(&BYTES);

        assert_eq!(secret.reveal(), "catamaran-cluster-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8mfCrn");
        assert_eq!(ClusterSecret::parse(secret.reveal()), Ok(secret));
    }

    #[test]
    fn every_single_slip_is_noticed() {
        let text = ClusterSecret::from_bytes(&BYTES).reveal().to_owned();
        for at in PREFIX.len()..text.len() {
            let mut slipped = text.clone().into_bytes();
            slipped[at] = if slipped[at] == b'x' { b'y' } else { b'x' };

            let slipped = String::from_utf8(slipped).unwrap();
            assert!(ClusterSecret::parse(&slipped).is_err(), "{slipped}");
        }
    }

    #[test]
    fn what_people_think_up_is_refused() {
        let zeros = ClusterSecret::from_bytes(&[0; RANDOM_BYTES]).reveal().to_owned();

        assert_eq!(ClusterSecret::parse(&zeros), Err(SecretFlaw::Weak));
        assert_eq!(ClusterSecret::parse("correct horse battery staple"), Err(SecretFlaw::Form));
        assert_eq!(ClusterSecret::parse(""), Err(SecretFlaw::Form));
        assert_eq!(ClusterSecret::parse(&zeros[..zeros.len() - 3]), Err(SecretFlaw::Form));
    }
}
