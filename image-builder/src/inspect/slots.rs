//! What a slot holds, and whether it is what was signed.

use std::fmt;

use disk_install::root::{read_manifest, verify_root};
use image_format::bytes::Bytes;
use image_format::digest::Sha256;
use image_format::gpt::PartitionEntry;
use image_format::manifest::Manifest;
use image_format::signed::{Keyring, PublicKey, Signed, Verified};
use image_format::slot::Slot;
use serde::Serialize;

use super::files::RootReader;
use super::{InspectDepth, InspectQuestion};
use crate::disk::DiskImage;
use error_text::printable::printable_text;

/// Where GRUB reads the kernel's command line.
const ENVIRONMENT: &str = "/boot/env";

/// What is known of a slot.
#[derive(Debug, Serialize)]
pub(crate) struct SlotReport {
    slot: String,
    state: TrustState,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
    signed_by: Vec<String>,
    /// Whose word the signature is.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusts: Option<Trust>,
    os_release: Option<String>,
    packages: Vec<String>,
}

/// Which keys a signature was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Trust {
    /// Those that a person named.
    GivenKeys,
    /// Those in the image itself, which prove only that it is consistent: who forges an image brings keys along.
    KeysOfTheImage,
}

/// How far a slot can be trusted.
#[derive(Debug, Serialize)]
#[serde(tag = "state", content = "because", rename_all = "kebab-case")]
enum TrustState {
    /// No manifest, and nothing where the file system would be.
    Empty,
    /// Something that is not what was signed.
    Refused(String),
    /// Signed; the root's blocks were not hashed.
    Signed,
    /// Signed, and every block is what was signed.
    Verified,
}

/// Looks at a slot.
pub(crate) fn report_slot(
    disk: &DiskImage,
    slot: Slot,
    entry: &PartitionEntry,
    question: &InspectQuestion,
) -> SlotReport {
    let mut report = SlotReport {
        slot: slot.to_string(),
        state: TrustState::Empty,
        manifest: None,
        signed_by: Vec::new(),
        trusts: None,
        os_release: None,
        packages: Vec::new(),
    };
    match read_manifest(disk, entry) {
        Ok(None) => {}
        Ok(Some(signed)) => fill_report(disk, entry, question, &signed, &mut report),
        Err(reason) => report.state = TrustState::Refused(reason),
    }
    report
}

fn fill_report(
    disk: &DiskImage,
    entry: &PartitionEntry,
    question: &InspectQuestion,
    signed: &Signed<Manifest>,
    report: &mut SlotReport,
) {
    let root = RootReader::open_root(disk, entry.byte_offset(), entry.byte_size()).ok();
    let (trust, keys) = if question.keys.is_empty() {
        (Trust::KeysOfTheImage, own_keys(root.as_ref()))
    } else {
        (Trust::GivenKeys, question.keys.clone())
    };
    report.os_release = root.as_ref().and_then(|root| root.read_text("/usr/lib/os-release"));
    let packages = root.as_ref().and_then(|root| root.read_text("/usr/lib/catamaran/packages"));
    report.packages = packages.unwrap_or_default().lines().map(str::to_owned).collect();
    report.state = match verify_signatures(signed, keys) {
        Err(reason) => TrustState::Refused(reason),
        Ok(manifest) => {
            report.signed_by = manifest.trusted_signers().iter().map(ToString::to_string).collect();
            report.trusts = Some(trust);
            report.manifest = Some((*manifest).clone());
            match question.depth {
                InspectDepth::Manifest => TrustState::Signed,
                InspectDepth::Blocks => match hash(disk, entry, &manifest, question.threads) {
                    TrustState::Verified => boot_files(root.as_ref(), &manifest),
                    other => other,
                },
            }
        }
    };
}

/// The boot loader reads these before anything is verified, so what the manifest says of each must be true.
fn boot_files(root: Option<&RootReader>, manifest: &Manifest) -> TrustState {
    let Some(root) = root else { return TrustState::Refused("its root is no ext4 file system".to_owned()) };
    for file in [&manifest.kernel, &manifest.initrd] {
        let digest = root.read(&file.path).map(|bytes| Sha256::digest_of(&bytes));
        if !digest.is_ok_and(|digest| digest == file.sha256) {
            return TrustState::Refused(format!("{} is not the file that the manifest names", file.path));
        }
    }
    let line = format!("cmdline={}", manifest.command_line);
    let given = root.read_text(ENVIRONMENT);
    if given.is_some_and(|text| text.lines().any(|found| found.trim_end() == line)) {
        TrustState::Verified
    } else {
        TrustState::Refused(format!("{ENVIRONMENT} does not give the kernel the signed command line"))
    }
}

/// The keys an image brings.
fn own_keys(root: Option<&RootReader>) -> Vec<PublicKey> {
    const FOLDER: &str = "/usr/lib/catamaran/release-keys";
    let Some(root) = root else { return Vec::new() };
    let names = root.list_folder(FOLDER).unwrap_or_default();
    names.iter().filter_map(|item| root.read_text(&format!("{FOLDER}/{}", item.name))?.parse().ok()).collect()
}

fn verify_signatures(signed: &Signed<Manifest>, keys: Vec<PublicKey>) -> Result<Verified<Manifest>, String> {
    let keyring =
        Keyring::new(keys, 1).map_err(|_| "no key is known that could have signed it".to_owned())?;
    keyring.verify_signed(signed).map_err(|error| error.to_string())
}

fn hash(disk: &DiskImage, entry: &PartitionEntry, manifest: &Manifest, threads: usize) -> TrustState {
    verify_root(disk, entry, manifest, threads).map_or_else(TrustState::Refused, |()| TrustState::Verified)
}

impl SlotReport {
    /// Whose signature holds for every block, in words; or what is wrong. Nothing for an empty slot.
    pub(crate) fn slot_verdict(&self) -> Result<Option<String>, String> {
        match &self.state {
            TrustState::Empty => Ok(None),
            TrustState::Refused(because) => Err(format!("slot {}: {because}", self.slot)),
            TrustState::Signed | TrustState::Verified => {
                let whose = match self.trusts {
                    Some(Trust::GivenKeys) => "which was given",
                    _ => "which the image itself brings: give --key to know whose it is",
                };
                Ok(Some(format!("slot {} by key {}, {whose}", self.slot, self.signed_by.join(", "))))
            }
        }
    }

    pub(crate) fn is_sound(&self) -> bool {
        !matches!(self.state, TrustState::Refused(_))
    }
}

impl fmt::Display for SlotReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            TrustState::Empty => "empty".to_owned(),
            TrustState::Refused(reason) => format!("REFUSED: {}", printable_text(reason)),
            TrustState::Signed => "signed (blocks not checked: --verify)".to_owned(),
            TrustState::Verified => "signed, every block verified".to_owned(),
        };
        writeln!(f, "slot {}: {state}", self.slot)?;
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let Manifest { name, version, channel, root, development, command_line, .. } = manifest;
        writeln!(f, "     version   {version} of {name}, channel {channel}")?;
        if *development {
            writeln!(f, "     signed by  a DEVELOPMENT key: for trying things out only")?;
        } else {
            writeln!(f, "     signed by  {}", self.signed_by.join(", "))?;
        }
        if self.trusts == Some(Trust::KeysOfTheImage) {
            writeln!(
                f,
                "     trusted    by the keys that the image itself brings; to trust one of yours: --key FILE"
            )?;
        }
        writeln!(f, "     kernel    {command_line}")?;
        writeln!(
            f,
            "     root      {} and {} of hashes",
            Bytes::new(root.data_bytes),
            Bytes::new(root.tree_bytes)
        )?;
        writeln!(f, "     root hash {}", root.root_hash)?;
        if let Some(pretty) = self.os_release.as_deref().and_then(pretty_name) {
            writeln!(f, "     system    {}, {} packages", printable_text(pretty), self.packages.len())?;
        }
        Ok(())
    }
}

fn pretty_name(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'))
}
