//! Whether a release in a file is believed: by the same keys as one of the channel.
//!
//! A machine that has root metadata goes by the release role of the newest root that it has reached. The keys of its
//! image are as old as the image: one of them may have been revoked since. Refuses to ask anybody for a newer root, since
//! a file is what a machine without a network installs from. Invariant: what the newest root does not trust is not
//! installed from a file either.

use std::io;
use std::path::Path;

use image_format::manifest::ManifestError;
use image_format::release::root::{OpenError, TrustRootError, TrustedRoot};
use image_format::signed::MAX_ENVELOPE;

use super::install::TrustedRelease;
use super::kept_trust::{read_bounded, read_trust};
use super::machine::{UpdateStepError, trust_release};
use super::repository::IMAGE_ROOT;
use crate::initramfs::verified_root::{ReadRootError, read_keyring};

/// The keys that this image trusts, inside the verified root.
pub(super) const KEYS: &str = "usr/lib/catamaran/release-keys";

/// Why a release in a file is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustFileError {
    #[error("cannot read the keys that this image trusts")]
    Keys(#[from] ReadRootError),
    #[error(
        "the release in the file is not signed by keys that root metadata {number} trusts; if it is of newer keys, let \
         the machine ask its update server first, or install from a copy of the repository"
    )]
    Manifest { number: u64, source: Box<OpenError<ManifestError>> },
    #[error("cannot read /{IMAGE_ROOT}")]
    ReadRoot { source: io::Error },
    #[error("/{IMAGE_ROOT} is not root metadata")]
    Root { source: Box<TrustRootError> },
    #[error(transparent)]
    Step(#[from] UpdateStepError),
}

/// Believes the manifest of a release that came in a file, or says why not.
pub(crate) fn trust_file(root: &Path, envelope: Vec<u8>) -> Result<TrustedRelease, TrustFileError> {
    let anchor = match read_bounded(&root.join(IMAGE_ROOT), MAX_ENVELOPE) {
        Ok(bytes) => bytes,
        // An image that follows no repository has its own keys and nothing else.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(trust_release(&read_keyring(&root.join(KEYS))?, envelope)?);
        }
        Err(source) => return Err(TrustFileError::ReadRoot { source }),
    };
    let anchor = TrustedRoot::anchor_chain(&anchor);
    let anchor = anchor.map_err(|source| TrustFileError::Root { source: Box::new(source) })?;
    let trusted = read_trust(root).newest_root(anchor);
    let number = trusted.number();
    let manifest = trusted.open_manifest(&envelope);
    let manifest =
        manifest.map_err(|source| TrustFileError::Manifest { number, source: Box::new(source) })?;
    Ok(TrustedRelease { manifest, envelope })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image_format::manifest::Manifest;
    use image_format::release::root::{RoleKeys, Roles, RootMetadata};
    use image_format::release::time::UnixTime;
    use image_format::release::trust::TrustState;
    use image_format::signed::{SecretKey, Signed};
    use image_format::version::Version;

    use super::super::kept_trust::keep_trust;
    use super::super::tests::{data, manifest};
    use super::*;

    /// The keys of these tests, by their seeds.
    const ROOT: u8 = 1;
    const OLD: u8 = 2;
    const NEW: u8 = 3;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    /// Root metadata whose release key has this seed.
    fn root_envelope(number: u64, release: u8) -> Vec<u8> {
        let keys = |seed| RoleKeys::from_keys(&[key(seed).public_key("test")], 1);
        let roles = Roles { channel: keys(9), release: keys(release), root: keys(ROOT) };
        let (written, expires) = (UnixTime::from_seconds(number), UnixTime::from_seconds(1 << 40));
        let metadata = RootMetadata { format: 1, number, written, expires, roles };
        Signed::<RootMetadata>::sign_payload(metadata.to_bytes().unwrap(), &[key(ROOT)]).to_envelope()
    }

    fn file_signed_by(seed: u8) -> Vec<u8> {
        let (manifest, _) = manifest(Version::new(1, 1, 0), &data(9));
        Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[key(seed)]).to_envelope()
    }

    /// A machine whose image trusts the old key, as it was built.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let keys = root.path().join(KEYS);
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join("release.pub"), key(OLD).public_key("test").to_text()).unwrap();
        root
    }

    fn with_root_metadata(machine: &tempfile::TempDir) {
        let path = machine.path().join(IMAGE_ROOT);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, root_envelope(1, OLD)).unwrap();
    }

    fn trusts(machine: &tempfile::TempDir, seed: u8) -> bool {
        trust_file(machine.path(), file_signed_by(seed)).is_ok()
    }

    #[test]
    fn a_file_is_believed_by_the_keys_of_the_newest_root_and_no_longer_by_those_of_the_image() {
        let machine = machine();
        with_root_metadata(&machine);
        assert!(trusts(&machine, OLD) && !trusts(&machine, NEW));

        let mut state = TrustState::default();
        state.record_root(&TrustedRoot::anchor_chain(&root_envelope(2, NEW)).unwrap());
        keep_trust(machine.path(), &state).unwrap();

        assert!(trusts(&machine, NEW), "the key that came with the second root");
        let refused = trust_file(machine.path(), file_signed_by(OLD)).unwrap_err();
        assert!(refused.to_string().contains("root metadata 2"), "{refused}");
    }

    #[test]
    fn an_image_without_root_metadata_goes_by_its_own_keys() {
        let machine = machine();

        assert!(trusts(&machine, OLD) && !trusts(&machine, NEW));
    }

    /// A damaged anchor must not open the way back to the keys of the image.
    #[test]
    fn root_metadata_that_cannot_be_read_is_no_leave_to_go_by_older_keys() {
        let machine = machine();
        with_root_metadata(&machine);
        fs::write(machine.path().join(IMAGE_ROOT), "{}").unwrap();

        assert!(!trusts(&machine, OLD));
    }
}
