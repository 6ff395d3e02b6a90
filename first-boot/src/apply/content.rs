//! The bytes of a file: here, or fetched and checked.
//!
//! Knows digests and gzip. Refuses bytes that do not match their digest. Invariant: nothing is
//! written before it was checked.
//!
//! Documentation: `contents` and `verification` in <https://coreos.github.io/ignition/configuration-v3_6/>.

use error_text::redacted_address;
use sha2::{Digest, Sha256, Sha512};
use user_data::plan::step::{FetchRequest, FileContent};
use user_data::room::unpack_gzip;

use super::ApplyContext;
use crate::digits::to_hex;
use crate::step_error::StepError;

/// What a file may have.
// It is held in memory until its digest is known.
const MOST_FETCHED: u64 = 64 << 20;

/// The bytes.
pub(crate) fn content_bytes(content: &FileContent, host: &ApplyContext<'_>) -> Result<Vec<u8>, StepError> {
    match content {
        FileContent::Inline(bytes) => Ok(bytes.reveal().clone()),
        FileContent::Fetched(fetch) => match (fetch_content(fetch, host), &fetch.fallback) {
            (Err(_), Some(fallback)) => Ok(fallback.reveal().clone()),
            (result, _) => result,
        },
    }
}

fn fetch_content(fetch: &FetchRequest, host: &ApplyContext<'_>) -> Result<Vec<u8>, StepError> {
    let mut bytes = host.web.get_within(&fetch.url, &fetch.headers, fetch.timeouts, MOST_FETCHED)?;
    // Ignition's digest is that of the unpacked bytes: `verification` in
    // <https://coreos.github.io/ignition/specs/>.
    if fetch.gzip {
        bytes = unpack_gzip(&bytes)
            .map_err(|flaw| StepError::Said(format!("what {} holds {flaw}", redacted_address(&fetch.url))))?;
    }
    if fetch.hash.as_ref().is_some_and(|hash| !digest_matches(hash, &bytes)) {
        return Err(StepError::Said(format!(
            "what {} holds has another digest than was promised",
            redacted_address(&fetch.url)
        )));
    }
    Ok(bytes)
}

/// `sha256-…` or `sha512-…`, in hexadecimal digits; any other kind matches nothing.
fn digest_matches(promised: &str, bytes: &[u8]) -> bool {
    match promised.split_once('-') {
        Some(("sha256", digest)) => to_hex(&Sha256::digest(bytes)).eq_ignore_ascii_case(digest),
        Some(("sha512", digest)) => to_hex(&Sha512::digest(bytes)).eq_ignore_ascii_case(digest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::digest_matches;

    #[test]
    fn only_the_promised_bytes_match() {
        let digest = "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

        assert!(digest_matches(digest, b"hello"));
        assert!(
            !digest_matches(digest, b"hallo")
                && !digest_matches("md5-5d41402abc4b2a76b9719d911017c592", b"hello")
        );
    }
}
