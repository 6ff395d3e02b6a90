//! The file on STATE that remembers what this machine accepted.
//!
//! Knows the file and how it is replaced. Refuses to judge: that is `image_format::release`.
//! Invariant: a reader sees the old state or the new one, and what was kept survives a power cut.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use image_format::release::trust::{MAX_STATE, TrustState, TrustStateError};

use crate::durable_file::{PRIVATE, replace_durably};

/// Where it lies, below the root.
pub(crate) const TRUST: &str = "var/lib/catamaran/update/trust.json";

/// Why the state was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepTrustError {
    #[error("cannot encode what was accepted")]
    Encode(#[from] TrustStateError),
    #[error("cannot keep what was accepted in /{TRUST}")]
    Write { source: io::Error },
}

/// What was accepted before. A lost or damaged file is begun anew: the image's root and build time still hold.
pub(crate) fn read_trust(root: &Path) -> TrustState {
    let bytes = read_bounded(&root.join(TRUST), MAX_STATE);
    bytes.ok().and_then(|bytes| TrustState::from_bytes(&bytes).ok()).unwrap_or_default()
}

/// Replaces what was kept, and syncs it.
pub(crate) fn keep_trust(root: &Path, state: &TrustState) -> Result<(), KeepTrustError> {
    let bytes = state.to_bytes()?;
    replace_durably(&root.join(TRUST), &bytes, PRIVATE).map_err(|source| KeepTrustError::Write { source })
}

/// Raises the machine's security epoch to that of a release that has proven itself.
pub(crate) fn record_good_release(root: &Path, security_epoch: u32) -> Result<(), KeepTrustError> {
    let mut state = read_trust(root);
    if state.security_epoch >= security_epoch {
        return Ok(());
    }
    state.record_good_release(security_epoch);
    keep_trust(root, &state)
}

/// Reads a file that has at most so many bytes.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, limit) = (Vec::new(), limit as u64);
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
