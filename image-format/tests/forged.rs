//! Forged releases: each folder of `tests/data` is named for its crime and holds the envelope and
//! what is said about it. `cargo test -p image-format --test forged -- --ignored` forges them anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::manifest::{BootFile, FORMAT, Manifest, RootPlacement, Salt};
use image_format::signed::{Keyring, SecretKey, Signed, SignedPayload};
use image_format::verity;
use image_format::version::Version;

/// Another thing that the same keys sign.
struct Channel;

impl SignedPayload for Channel {
    const ROLE: &'static str = "channel";
    type Error = std::convert::Infallible;

    fn from_bytes(_: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}

fn trusted(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// Two of three keys must agree.
fn keyring() -> Keyring {
    Keyring::new([1, 2, 3].map(|seed| trusted(seed).public_key("release")), 2).unwrap()
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn manifest() -> String {
    let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(path.as_bytes()) };
    let blocks = 1000;
    let manifest = Manifest {
        format: FORMAT,
        name: "cloud".into(),
        version: Version::new(1, 2, 3),
        channel: "stable".into(),
        architecture: "x86_64".into(),
        built: 1_700_000_000,
        development: false,
        security_epoch: 0,
        root: RootPlacement {
            data_bytes: blocks * 4096,
            tree_offset: blocks * 4096,
            tree_bytes: verity::tree_blocks(blocks) * 4096,
            root_hash: Sha256::digest_of(b"root"),
            salt: Salt::new(vec![7; 32]).unwrap(),
        },
        kernel: file("/boot/vmlinuz"),
        initrd: file("/boot/initrd.img"),
        command_line: "quiet".parse().unwrap(),
    };
    String::from_utf8(manifest.to_bytes().unwrap()).unwrap()
}

fn signed(payload: &str, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<SecretKey> = seeds.iter().map(|seed| trusted(*seed)).collect();
    Signed::<Manifest>::sign_payload(payload.as_bytes().to_vec(), &keys).to_envelope()
}

fn replaced(envelope: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(envelope.to_vec()).unwrap().replacen(from, to, 1).into_bytes()
}

fn forgeries() -> Vec<(&'static str, Vec<u8>)> {
    let good = manifest();
    let proper = signed(&good, &[1, 2]);
    let keys = [trusted(1), trusted(2)];
    let channel = Signed::<Channel>::sign_payload(good.clone().into_bytes(), &keys).to_envelope();
    vec![
        ("below-threshold", signed(&good, &[3])),
        ("changed-after-signing", replaced(&proper, "\"version\": \"1.2.3\"", "\"version\": \"9.2.3\"")),
        ("channel-signature-as-manifest", replaced(&channel, "-v1 channel ", "-v1 manifest ")),
        ("cut-short", proper[..proper.len() - 100].to_vec()),
        ("duplicate-signer", signed(&good, &[1, 1])),
        ("kernel-outside-root", signed(&good.replace("/boot/vmlinuz", "/../vmlinuz"), &[1, 2])),
        ("later-format", signed(&good.replace("\"format\": 1", "\"format\": 2"), &[1, 2])),
        ("reserved-parameter", signed(&good.replace("quiet", "catamaran.slot=b"), &[1, 2])),
        ("two-documents", signed(&format!("{good}{good}"), &[1, 2])),
        ("tree-too-short", signed(&good.replace("\"tree_bytes\": 36864", "\"tree_bytes\": 4096"), &[1, 2])),
        ("twice-the-field", signed(&good.replacen('{', "{\"built\": 1,", 1), &[1, 2])),
        ("unsigned", signed(&good, &[])),
        ("wrong-keys", signed(&good, &[8, 9])),
    ]
}

fn said_of(envelope: &[u8]) -> String {
    let refused: Box<dyn Error> = match Signed::<Manifest>::from_envelope(envelope) {
        Ok(signed) => match keyring().verify_signed(&signed) {
            Ok(verified) => panic!("accepted: {:?}", *verified),
            Err(error) => Box::new(error),
        },
        Err(error) => Box::new(error),
    };
    let mut said = String::new();
    let mut cause: Option<&dyn Error> = Some(&*refused);
    while let Some(error) = cause {
        said.extend([error.to_string().as_str(), "\n"]);
        cause = error.source();
    }
    said
}

#[test]
fn every_forged_release_is_refused_for_its_crime() {
    for (crime, _) in forgeries() {
        let envelope = fs::read(data().join(crime).join("envelope")).unwrap();
        let expected = fs::read_to_string(data().join(crime).join("said")).unwrap();

        assert_eq!(said_of(&envelope), expected, "{crime}");
    }
}

#[test]
fn the_proper_release_is_accepted() {
    let signed = Signed::<Manifest>::from_envelope(&signed(&manifest(), &[3, 1])).unwrap();

    assert_eq!(keyring().verify_signed(&signed).unwrap().version, Version::new(1, 2, 3));
}

#[test]
#[ignore = "forges the releases anew"]
fn forge() {
    for (crime, envelope) in forgeries() {
        let folder = data().join(crime);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("said"), said_of(&envelope)).unwrap();
        fs::write(folder.join("envelope"), envelope).unwrap();
    }
}
