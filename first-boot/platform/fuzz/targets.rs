//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use std::io::Cursor;

use platform::{Platform, disk::ConfigVolume};

/// The platforms, in the order of the first byte of an entry.
pub(crate) const PLATFORMS: [Platform; 18] = [
    Platform::Akamai,
    Platform::Azure,
    Platform::CloudConfigUrl,
    Platform::ConfigDrive,
    Platform::DigitalOcean,
    Platform::Ec2,
    Platform::Equinix,
    Platform::Exoscale,
    Platform::Gce,
    Platform::Hetzner,
    Platform::NoCloud,
    Platform::OpenStack,
    Platform::Oracle,
    Platform::Qemu,
    Platform::Scaleway,
    Platform::UpCloud,
    Platform::Vmware,
    Platform::Vultr,
];

/// A platform's metadata: the first byte chooses the platform. Whatever it says, every key is one
/// line and every variable of the metadata file is one too.
pub(crate) fn metadata(bytes: &[u8]) {
    let Some((first, document)) = bytes.split_first() else { return };
    facts(PLATFORMS[usize::from(*first) % PLATFORMS.len()], document);
}

/// The same, of a platform that is chosen already.
pub(crate) fn facts(platform: Platform, document: &[u8]) {
    let provision = platform.read_document(document);
    assert_eq!(provision.platform, platform);
    assert!(provision.ssh_keys.iter().all(|key| !key.contains(['\n', '\r'])));
    for line in provision.metadata_file().lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(line.contains('='), "every line sets a variable");
        let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(!name.is_empty() && name.chars().all(legal), "{name}");
    }
}

/// A disk of any bytes: recognised or not, its files are read in bounds.
pub(crate) fn disk(bytes: &[u8]) {
    let Some(mut volume) = ConfigVolume::open_volume(Cursor::new(bytes)) else { return };
    for file in ["meta-data", "user-data", "openstack/latest/meta_data.json", "seed/user-data", "ovf-env.xml"]
    {
        if let Ok(Some(content)) = volume.read(file, 1 << 20) {
            assert!(content.len() <= 1 << 20);
        }
    }
}
