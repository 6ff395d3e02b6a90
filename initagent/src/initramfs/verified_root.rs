//! Reads the manifest at the end of the slot and believes it only if trusted keys signed it.
//!
//! Knows where the manifest and the keys are, and that the first block of the root and the kernel's command
//! line must match. GRUB reads that line from a file of the root below dm-verity, so a disk can hold one line
//! for GRUB and have another verified; comparing what the kernel was in fact given leaves no such gap.
//! Refuses to know how the root is opened afterwards.
//! Invariant: [`Verified`] comes from here alone, and only for a slot that it fits into.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::command_line::{CommandLineError, GivenLine};
use image_format::manifest::{Manifest, ManifestError};
use image_format::signed::{
    Keyring, MakeKeyringError, ParseEnvelopeError, ParseKeyError, PublicKey, Signed, Verified, VerifyError,
};
use image_format::slot::Slot;
use image_format::trailer::{self, TRAILER_BYTES, TrailerError};
use image_format::verity::{VerifyBlockError, verify_block};

use crate::block_device::{AccessMode, BlockDevice};

/// The public keys that image-builder put into the initramfs, one a file, `*.pub`.
pub(super) const KEYS: &str = "/etc/catamaran/release-keys";
/// How many of them must have signed; one, if the file is missing.
const THRESHOLD: &str = "threshold";

/// Why a slot is not believed, or could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRootError {
    #[error("its image is for {given}, but this machine is {machine}")]
    Architecture { given: String, machine: String },
    #[error("its kernel command line is not the signed one")]
    CommandLine(#[from] CommandLineError),
    #[error("its manifest is not in its envelope")]
    Envelope(#[from] ParseEnvelopeError),
    #[error("{path} is not a release key")]
    Key { path: PathBuf, source: ParseKeyError },
    #[error("the release keys in {KEYS} cannot be used")]
    Keyring(#[from] MakeKeyringError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("its root needs a partition of {needed}, but {path} has {given}")]
    Size { path: PathBuf, needed: Bytes, given: Bytes },
    #[error("{path} is not a number")]
    Threshold { path: PathBuf },
    #[error("its last 64 KiB carry no manifest")]
    Trailer(#[from] TrailerError),
    #[error("its manifest is not trusted")]
    Verify(#[from] VerifyError<ManifestError>),
    #[error("its root is not the signed one")]
    Verity(#[source] VerifyBlockError),
}

impl ReadRootError {
    /// Whether it is the content of the slot that is wrong, so that trying again is in vain.
    pub(super) const fn is_about_slot(&self) -> bool {
        match self {
            Self::Key { .. } | Self::Keyring(_) | Self::Read { .. } | Self::Threshold { .. } => false,
            Self::Verity(error) => matches!(error, VerifyBlockError::Mismatch { .. }),
            Self::Architecture { .. }
            | Self::CommandLine(_)
            | Self::Envelope(_)
            | Self::Size { .. }
            | Self::Trailer(_)
            | Self::Verify(_) => true,
        }
    }
}

/// Reads the manifest of a slot and checks it, the line that the kernel was given, and the block that a mount
/// reads first.
pub(super) fn read(
    device: &Path,
    keys: &Path,
    slot: Slot,
    line: &GivenLine<'_>,
) -> Result<Verified<Manifest>, ReadRootError> {
    let keyring = read_keyring(keys)?;
    let device = BlockDevice::open_device(device, AccessMode::Read)
        .map_err(|source| ReadRootError::Read { path: device.to_owned(), source })?;
    let machine = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.machine().to_string_lossy().into_owned());
    let manifest = verify_manifest(&device, &keyring, &machine, line)?;
    super::console::write_kernel_log(&format!("slot {slot} holds {} {}", manifest.name, manifest.version));
    Ok(manifest)
}

fn verify_manifest(
    device: &BlockDevice,
    keyring: &Keyring,
    machine: &str,
    line: &GivenLine<'_>,
) -> Result<Verified<Manifest>, ReadRootError> {
    let unread = |source| ReadRootError::Read { path: device.path().to_owned(), source };
    let given = device.byte_size().map_err(unread)?;
    let offset = trailer::trailer_offset(given).ok_or_else(|| unread(io::ErrorKind::UnexpectedEof.into()))?;
    let trailer = device.read(offset, TRAILER_BYTES).map_err(unread)?;
    let signed = Signed::<Manifest>::from_envelope(trailer::decode_trailer(&trailer)?)?;
    // First: everything below reads numbers that only a signature makes trustworthy.
    let manifest = keyring.verify_signed(&signed)?;
    if manifest.architecture != machine {
        let given = manifest.architecture.clone();
        return Err(ReadRootError::Architecture { given, machine: machine.to_owned() });
    }
    // Before the root is opened: a word of the line can be root's code.
    manifest.command_line.check_given(line, &manifest.kernel.path)?;
    let needed = manifest.root.slot_bytes();
    if needed > given {
        return Err(ReadRootError::Size { path: device.path().to_owned(), needed, given });
    }
    // The superblock, which a mount reads first. A mismatch there would panic the kernel, and the slot would
    // be tried in vain.
    verify_block(device, manifest.root.verity_placement(), 0).map_err(ReadRootError::Verity)?;
    Ok(manifest)
}

/// The keys of a folder, and how many of them must agree.
pub(crate) fn read_keyring(folder: &Path) -> Result<Keyring, ReadRootError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadRootError::Read { path, source }
    };
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread(folder))? {
        let path = entry.map_err(unread(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            let text = fs::read_to_string(&path).map_err(unread(&path))?;
            keys.push(text.parse::<PublicKey>().map_err(|source| ReadRootError::Key { path, source })?);
        }
    }
    Ok(Keyring::new(keys, read_threshold(&folder.join(THRESHOLD))?)?)
}

fn read_threshold(path: &Path) -> Result<usize, ReadRootError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| ReadRootError::Threshold { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(source) => Err(ReadRootError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
