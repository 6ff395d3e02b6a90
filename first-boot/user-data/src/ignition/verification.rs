//! Whether bytes have the digest that `verification.hash` names.
//!
//! Documentation: `verification` in <https://coreos.github.io/ignition/configuration-v3_5/>.

use sha2::{Digest, Sha256, Sha512};

/// Whether bytes have a hash such as `sha256-…`.
pub(super) fn digest_matches(bytes: &[u8], hash: &str) -> bool {
    let hex = |digest: &[u8]| digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    // Hexadecimal digits may be capitals, and Ignition compares the bytes.
    let wanted = hash.to_ascii_lowercase();
    match wanted.split_once('-') {
        Some(("sha256", wanted)) => hex(&Sha256::digest(bytes)) == wanted,
        Some(("sha512", wanted)) => hex(&Sha512::digest(bytes)) == wanted,
        _ => false,
    }
}
