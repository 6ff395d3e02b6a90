//! Releases, slots and machines in files, for the tests of this room.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::manifest::{self, BootFile, Manifest, RootPlacement, Salt};
use image_format::signed::{Keyring, SecretKey, Signed};
use image_format::slot::{LoadCondition, Slot, SlotTable, boot_decision};
use image_format::trailer;
use image_format::verity::{self, BLOCK_BYTES};
use image_format::version::Version;

use super::install::TrustedRelease;
use super::machine::UpdateMachine;
use super::phase::{ManifestDigest, Target};
use crate::boot_record::{BootDevices, BootRecord};

/// Bytes of the slots of these tests.
pub(crate) const SLOT_BYTES: u64 = 2 << 20;

/// The key that signs here.
pub(crate) fn secret_key() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

/// The key that is trusted here.
pub(crate) fn keyring() -> Keyring {
    Keyring::new([secret_key().public_key("test")], 1).unwrap()
}

/// Data of 300 blocks, which need a tree of two levels and two runs of a mebibyte.
pub(crate) fn data(seed: u8) -> Vec<u8> {
    let block = |index: usize| u8::try_from(index % 251).unwrap().wrapping_mul(seed).wrapping_add(seed);
    (0..300 * BLOCK_BYTES)
        .map(|at| if (at / BLOCK_BYTES).is_multiple_of(7) { 0 } else { block(at / BLOCK_BYTES) })
        .collect()
}

/// A manifest for this data.
pub(crate) fn manifest(version: Version, data: &[u8]) -> (Manifest, verity::HashTree) {
    let salt = vec![9; 32];
    let tree = verity::build_tree(&data, data.len() as u64, &salt, 1).unwrap();
    let root = RootPlacement {
        data_bytes: data.len() as u64,
        tree_offset: data.len() as u64,
        tree_bytes: tree.bytes.len() as u64,
        root_hash: tree.root_hash,
        salt: Salt::new(salt).unwrap(),
    };
    let file = |path: &str| BootFile { path: path.into(), sha256: Sha256::digest_of(path.as_bytes()) };
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: "cloud".into(),
        version,
        channel: "stable".into(),
        architecture: "x86_64".into(),
        built: 1,
        security_epoch: 0,
        development: false,
        root,
        kernel: file("/boot/vmlinuz"),
        initrd: file("/boot/initrd.img"),
        command_line: "quiet".parse().unwrap(),
    };
    (manifest, tree)
}

/// A release of this data.
pub(crate) fn release(version: Version, data: &[u8]) -> TrustedRelease {
    let (manifest, _) = manifest(version, data);
    let signed = Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[secret_key()]);
    TrustedRelease { manifest: keyring().verify_signed(&signed).unwrap(), envelope: signed.to_envelope() }
}

/// Writes a whole slot into a file.
pub(crate) fn write_slot(path: &Path, version: Version, data: &[u8]) -> TrustedRelease {
    let file = File::create(path).unwrap();
    file.set_len(SLOT_BYTES).unwrap();
    let (manifest, tree) = manifest(version.clone(), data);
    let release = release(version, data);
    file.write_all_at(data, 0).unwrap();
    file.write_all_at(&tree.bytes, manifest.root.tree_offset).unwrap();
    let end = trailer::encode_trailer(&release.envelope).unwrap();
    file.write_all_at(&end, SLOT_BYTES - end.len() as u64).unwrap();
    release
}

/// What a slot in a file holds, if it is whole.
pub(crate) fn read_slot(path: &Path) -> Option<Version> {
    let bytes = fs::read(path).unwrap();
    let envelope = trailer::decode_trailer(&bytes[bytes.len() - trailer::TRAILER_BYTES..]).ok()?;
    let manifest = keyring().verify_signed(&Signed::<Manifest>::from_envelope(envelope).unwrap()).unwrap();
    let root = &manifest.root;
    let start = usize::try_from(root.tree_offset).unwrap();
    let tree = bytes[start..start + usize::try_from(root.tree_bytes).unwrap()].to_vec();
    let tree = verity::HashTree { bytes: tree, root_hash: root.root_hash };
    verity::verify_tree(&bytes.as_slice(), root.data_bytes, root.salt.as_bytes(), 1, &tree).unwrap();
    Some(manifest.version.clone())
}

/// What the initramfs would note of a machine without devices.
pub(crate) fn record(running: Slot) -> BootRecord {
    BootRecord {
        slot: running,
        name: "cloud".into(),
        version: Version::new(1, 0, 0),
        channel: "stable".into(),
        root_hash: Sha256::digest_of(b"running"),
        development: false,
        built: 1,
        security_epoch: 0,
        below: None,
        devices: BootDevices {
            disk: PathBuf::new(),
            esp: PathBuf::new(),
            abstate: PathBuf::new(),
            root: PathBuf::new(),
            other_root: PathBuf::new(),
            state: PathBuf::new(),
            verity: PathBuf::new(),
        },
    }
}

/// The two copies of a slot table in a file.
pub(crate) fn write_abstate(path: &Path, table: SlotTable) {
    let image = crate::slots::store::tests::abstate(table);
    fs::copy(image.path(), path).unwrap();
}

/// An update to slot B.
pub(crate) fn target(content: &[u8]) -> Target {
    Target {
        slot: Slot::B,
        version: Version::new(1, 1, 0),
        root_hash: Sha256::digest_of(content),
        manifest: ManifestDigest { bytes: 1, sha256: Sha256::digest_of(content) },
        source: "/media/stick".into(),
    }
}

/// A machine in a folder: 1.0.0 runs from slot A, and slot B is empty.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) machine: UpdateMachine,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let running = write_slot(&at("root-a"), Version::new(1, 0, 0), &data(3));
        fs::write(at("root-b"), vec![0; usize::try_from(SLOT_BYTES).unwrap()]).unwrap();
        write_abstate(&at("abstate"), SlotTable::FRESH);
        let mut record = record(Slot::A);
        record.root_hash = running.manifest.root.root_hash;
        record.devices.abstate = at("abstate");
        record.devices.root = at("root-a");
        record.devices.other_root = at("root-b");
        let machine = UpdateMachine { root: folder.path().to_owned(), record, boot: "one".into() };
        Self { folder, machine }
    }

    /// A slot in a file, as a source.
    pub(crate) fn source(&self, version: Version, seed: u8) -> (PathBuf, TrustedRelease) {
        let path = self.folder.path().join(format!("source-{seed}"));
        let release = write_slot(&path, version, &data(seed));
        (path, release)
    }

    pub(crate) fn table(&self) -> SlotTable {
        self.machine.slot_table().unwrap().unwrap()
    }

    /// What the boot loader starts next; the try is spent, and the machine is another boot on.
    pub(crate) fn restart(&mut self) -> Slot {
        let table = self.table();
        let attempt = boot_decision(&table.to_block(), &[]).attempts[0];
        if let LoadCondition::Saves(after) | LoadCondition::MustSave(after) = attempt.condition {
            write_abstate(&self.machine.record.devices.abstate, after);
        }
        let (a, b) = (self.folder.path().join("root-a"), self.folder.path().join("root-b"));
        let (root, other) = if attempt.slot == Slot::A { (a, b) } else { (b, a) };
        let bytes = fs::read(&root).unwrap();
        let envelope =
            trailer::decode_trailer(&bytes[bytes.len() - trailer::TRAILER_BYTES..]).unwrap().to_vec();
        let release = super::machine::trust_release(&keyring(), envelope).unwrap();
        let record = &mut self.machine.record;
        record.slot = attempt.slot;
        record.version = release.manifest.version.clone();
        record.root_hash = release.manifest.root.root_hash;
        record.built = release.manifest.built;
        record.security_epoch = release.manifest.security_epoch;
        record.devices.root = root;
        record.devices.other_root = other;
        self.machine.boot.push('+');
        let _ = fs::remove_dir_all(self.folder.path().join("run"));
        attempt.slot
    }
}
