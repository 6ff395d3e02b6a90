//! Releases, slots and machines in files, for the tests of this room.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::manifest::{self, BootFile, Manifest, Root, Salt};
use image_format::signed::{Keyring, SecretKey, Signed};
use image_format::slot::{Slot, SlotTable};
use image_format::trailer;
use image_format::verity::{self, BLOCK_BYTES};
use image_format::version::Version;

use super::install::TrustedRelease;
use crate::boot_record::{BootRecord, Devices};

/// Bytes of the slots of these tests.
pub(crate) const SLOT_BYTES: u64 = 4 << 20;

/// The key that signs here.
pub(crate) fn secret_key() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

/// The key that is trusted here.
pub(crate) fn keyring() -> Keyring {
    Keyring::new([secret_key().public("test")], 1).unwrap()
}

/// Data of 600 blocks, which need a tree of two levels and three runs of a mebibyte.
pub(crate) fn data(seed: u8) -> Vec<u8> {
    let block = |index: usize| u8::try_from(index % 251).unwrap().wrapping_mul(seed).wrapping_add(seed);
    (0..600 * BLOCK_BYTES)
        .map(|at| if (at / BLOCK_BYTES).is_multiple_of(7) { 0 } else { block(at / BLOCK_BYTES) })
        .collect()
}

/// A manifest for this data.
pub(crate) fn manifest(version: Version, data: &[u8]) -> (Manifest, verity::Tree) {
    let salt = vec![9; 32];
    let tree = verity::build(&data, data.len() as u64, &salt, 1).unwrap();
    let root = Root {
        data_bytes: data.len() as u64,
        tree_offset: data.len() as u64,
        tree_bytes: tree.bytes.len() as u64,
        root_hash: tree.root_hash,
        salt: Salt::new(salt).unwrap(),
    };
    let file = |path: &str| BootFile { path: path.into(), sha256: Sha256::of(path.as_bytes()) };
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: "cloud".into(),
        version,
        channel: "stable".into(),
        architecture: "x86_64".into(),
        built: 1,
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
    let signed = Signed::<Manifest>::sign(manifest.to_bytes().unwrap(), &[secret_key()]);
    TrustedRelease { manifest: keyring().verify(&signed).unwrap(), envelope: signed.to_envelope() }
}

/// Writes a whole slot into a file.
pub(crate) fn write_slot(path: &Path, version: Version, data: &[u8]) -> TrustedRelease {
    let file = File::create(path).unwrap();
    file.set_len(SLOT_BYTES).unwrap();
    let (manifest, tree) = manifest(version.clone(), data);
    let release = release(version, data);
    file.write_all_at(data, 0).unwrap();
    file.write_all_at(&tree.bytes, manifest.root.tree_offset).unwrap();
    let end = trailer::encode(&release.envelope).unwrap();
    file.write_all_at(&end, SLOT_BYTES - end.len() as u64).unwrap();
    release
}

/// What a slot in a file holds, if it is whole.
pub(crate) fn read_slot(path: &Path) -> Option<Version> {
    let bytes = fs::read(path).unwrap();
    let envelope = trailer::decode(&bytes[bytes.len() - trailer::TRAILER_BYTES..]).ok()?;
    let manifest = keyring().verify(&Signed::<Manifest>::from_envelope(envelope).unwrap()).unwrap();
    let root = &manifest.root;
    let start = usize::try_from(root.tree_offset).unwrap();
    let tree = bytes[start..start + usize::try_from(root.tree_bytes).unwrap()].to_vec();
    let tree = verity::Tree { bytes: tree, root_hash: root.root_hash };
    verity::verify(&bytes.as_slice(), root.data_bytes, root.salt.as_bytes(), 1, &tree).unwrap();
    Some(manifest.version.clone())
}

/// What the initramfs would note of a machine without devices.
pub(crate) fn record(running: Slot) -> BootRecord {
    BootRecord {
        slot: running,
        name: "cloud".into(),
        version: Version::new(1, 0, 0),
        channel: "stable".into(),
        root_hash: Sha256::of(b"running"),
        development: false,
        below: None,
        devices: Devices {
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
