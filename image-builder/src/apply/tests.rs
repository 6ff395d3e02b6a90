//! Facts about whom an image trusts.

use std::os::unix::fs::PermissionsExt as _;

use image_format::release::root::{FORMAT, RoleKeys, Roles, RootMetadata};
use image_format::release::time::UnixTime;
use image_format::signed::Signed;

use super::*;
use crate::plan::BuildFacts;
use crate::rootfs::tree::RootTree;
use crate::spec;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn role(seeds: &[u8]) -> RoleKeys {
    let keys: Vec<PublicKey> = seeds.iter().map(|seed| key(*seed).public_key("test")).collect();
    RoleKeys::from_keys(&keys, 1)
}

/// A plan that signs with the key of this seed, and whose machines are to trust a root with release keys 30 and 31.
fn plan(folder: &Path, seed: u8) -> BuildPlan {
    let times = [1, 2].map(UnixTime::from_seconds);
    let roles = Roles { channel: role(&[20]), release: role(&[30, 31]), root: role(&[1]) };
    let root = RootMetadata { format: FORMAT, number: 1, written: times[0], expires: times[1], roles };
    let signed = Signed::<RootMetadata>::sign_payload(root.to_bytes().unwrap(), &[key(1)]);
    let (root_file, key_file) = (folder.join("root"), folder.join("release.key"));
    fs::write(&root_file, signed.to_envelope()).unwrap();
    fs::write(&key_file, key(seed).to_text()).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let facts = BuildFacts {
        mirror: Some("http://deb.example/debian".to_owned()),
        security_mirror: None,
        keyring: PathBuf::new(),
        epoch: None,
        signing: SigningKey::Keys(vec![key_file]),
        update_root: Some(root_file),
        initagent: PathBuf::new(),
        lock: None,
        cache: folder.to_owned(),
        output: folder.to_owned(),
        threads: 1,
    };
    let spec = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays/cloud.yaml");
    plan::plan_build(spec::read(Path::new(spec)).unwrap(), facts).unwrap()
}

#[test]
fn an_image_carries_the_root_that_it_follows_and_all_its_release_keys() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), 30);

    let signer = choose_signer(&plan, folder.path()).unwrap();

    let mut ids: Vec<_> = [30, 31].map(|seed| key(seed).public_key("").key_id()).to_vec();
    ids.sort();
    assert_eq!(signer.trusted.iter().map(PublicKey::key_id).collect::<Vec<_>>(), ids);
    let mut tree = RootTree::default();
    root::write_identity(&mut tree, &plan.spec, &signer);
    let carried = tree.read("usr/share/catamaran/root").unwrap();
    assert_eq!(carried, fs::read(folder.path().join("root")).unwrap());
    assert_eq!(TrustedRoot::anchor_chain(&carried).unwrap().number(), 1);
}

#[test]
fn an_image_that_its_own_root_would_refuse_is_not_built() {
    let folder = tempfile::tempdir().unwrap();

    let refused = choose_signer(&plan(folder.path(), 99), folder.path());

    assert!(matches!(refused.err(), Some(BuildError::NotTrusted { .. })));
}
