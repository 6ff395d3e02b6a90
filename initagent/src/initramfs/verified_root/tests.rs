//! Slots that are believed, and slots that are not.

use image_format::digest::Sha256;
use image_format::manifest::{BootFile, FORMAT, RootPlacement, Salt};
use image_format::signed::SecretKey;
use image_format::verity;
use image_format::version::Version;
use tempfile::NamedTempFile;

use super::*;
use error_text::error_chain;

const SALT: [u8; 32] = [7; 32];

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn trusted() -> Keyring {
    Keyring::new([key(1).public_key("test")], 1).unwrap()
}

/// A slot of 1 MiB whose root is 50 blocks of text.
fn slot(change: impl FnOnce(&mut Manifest), by: u8) -> NamedTempFile {
    let data: Vec<u8> = b"catamaran".iter().copied().cycle().take(50 * verity::BLOCK_BYTES).collect();
    let tree = verity::build_tree(&data.as_slice(), data.len() as u64, &SALT, 1).unwrap();
    let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(b"") };
    let mut manifest = Manifest {
        format: FORMAT,
        name: "cloud".into(),
        version: Version::new(1, 0, 0),
        channel: "stable".into(),
        architecture: "x86_64".into(),
        built: 0,
        development: false,
        security_epoch: 0,
        root: RootPlacement {
            data_bytes: data.len() as u64,
            tree_offset: data.len() as u64,
            tree_bytes: tree.bytes.len() as u64,
            root_hash: tree.root_hash,
            salt: Salt::new(SALT.to_vec()).unwrap(),
        },
        kernel: file("/boot/vmlinuz"),
        initrd: file("/boot/initrd.img"),
        command_line: "quiet panic=10".parse().unwrap(),
    };
    change(&mut manifest);
    let signed = Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[key(by)]);
    let mut bytes = [data, tree.bytes].concat();
    bytes.resize((1 << 20) - TRAILER_BYTES, 0);
    bytes.extend(trailer::encode_trailer(&signed.to_envelope()).unwrap());
    let image = NamedTempFile::new().unwrap();
    fs::write(image.path(), bytes).unwrap();
    image
}

fn check(image: &NamedTempFile) -> Result<Verified<Manifest>, ReadRootError> {
    check_given(image, "quiet panic=10")
}

fn check_given(image: &NamedTempFile, line: &str) -> Result<Verified<Manifest>, ReadRootError> {
    let device = BlockDevice::open_device(image.path(), AccessMode::Read).unwrap();
    let line = format!("BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz {line} catamaran.slot=a");
    verify_manifest(&device, &trusted(), "x86_64", &GivenLine::parse(&line))
}

fn flip(image: &NamedTempFile, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(image.path()).unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_signed_slot_is_believed() {
    assert_eq!(check(&slot(|_| {}, 1)).unwrap().version, Version::new(1, 0, 0));
}

#[test]
fn a_slot_that_a_stranger_signed_is_bad() {
    let refused = check(&slot(|_| {}, 2)).unwrap_err();

    assert!(refused.is_about_slot());
    assert_eq!(
        error_chain(&refused),
        "its manifest is not trusted: 0 trusted keys signed the manifest, but 1 must"
    );
}

#[test]
fn a_slot_with_a_flipped_bit_in_manifest_or_superblock_is_bad() {
    let image = slot(|_| {}, 1);
    flip(&image, (1 << 20) - TRAILER_BYTES as u64 + 400);
    assert!(check(&image).unwrap_err().is_about_slot());

    let image = slot(|_| {}, 1);
    flip(&image, 1024);
    let refused = check(&image).unwrap_err();
    assert!(refused.is_about_slot());
    assert_eq!(
        error_chain(&refused),
        "its root is not the signed one: block 0 of the root is not what its root hash says"
    );
}

#[test]
fn a_slot_whose_kernel_was_given_another_line_is_bad() {
    let image = slot(|_| {}, 1);

    let refused = check_given(&image, "quiet panic=10 init=/bin/sh").unwrap_err();

    assert!(refused.is_about_slot());
    assert_eq!(
        error_chain(&refused),
        "its kernel command line is not the signed one: \"init=/bin/sh\" was added"
    );
    assert!(check_given(&image, "quiet panic=0").unwrap_err().is_about_slot());
}

#[test]
fn an_empty_slot_is_bad() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();

    let refused = check(&image).unwrap_err();

    assert!(refused.is_about_slot());
    assert_eq!(error_chain(&refused), "its last 64 KiB carry no manifest: the slot ends without a manifest");
}

#[test]
fn a_slot_for_another_machine_or_a_larger_partition_is_bad() {
    let refused = check(&slot(|manifest| manifest.architecture = "aarch64".into(), 1)).unwrap_err();
    assert!(refused.is_about_slot());
    assert_eq!(refused.to_string(), "its image is for aarch64, but this machine is x86_64");

    let refused = check(&slot(|manifest| manifest.root.tree_offset = 1 << 20, 1)).unwrap_err();
    assert!(matches!(refused, ReadRootError::Size { .. }), "{refused}");
    assert!(refused.is_about_slot());
}

#[test]
fn keys_and_threshold_come_from_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let missing = read_keyring(folder.path()).unwrap_err();
    assert_eq!(
        error_chain(&missing),
        "the release keys in /etc/catamaran/release-keys cannot be used: \
         1 of 0 keys are to agree, which is not possible"
    );
    assert!(!missing.is_about_slot());

    fs::write(folder.path().join("one.pub"), key(1).public_key("one").to_text()).unwrap();
    fs::write(folder.path().join("note.txt"), "not a key").unwrap();
    assert!(read_keyring(folder.path()).is_ok());

    fs::write(folder.path().join(THRESHOLD), "2\n").unwrap();
    assert!(matches!(read_keyring(folder.path()), Err(ReadRootError::Keyring(_))));
    fs::write(folder.path().join("two.pub"), key(2).public_key("two").to_text()).unwrap();
    let signed = Signed::<Manifest>::sign_payload(b"{}".to_vec(), &[key(1)]);
    let refused = read_keyring(folder.path()).unwrap().verify_signed(&signed).unwrap_err();
    assert_eq!(refused.to_string(), "1 trusted keys signed the manifest, but 2 must");

    fs::write(folder.path().join("broken.pub"), "rsa").unwrap();
    assert!(matches!(read_keyring(folder.path()), Err(ReadRootError::Key { .. })));
}
