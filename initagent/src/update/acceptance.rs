//! What speaks against a release on this machine, whoever signed it and however it came.
//!
//! Knows the image, the version floor and the security epoch. Refuses to read them. Invariant: what a channel would
//! not offer for its age is not taken from a file either.

use image_format::manifest::Manifest;

use crate::boot_record::BootRecord;
use crate::release_floor::ReleaseFloor;

/// What this machine is, and what it has proven.
pub(crate) struct MachineStanding<'a> {
    pub(crate) record: &'a BootRecord,
    /// As `uname -m` names it.
    pub(crate) architecture: String,
    pub(crate) floor: Option<ReleaseFloor>,
    /// Of the releases that have proven themselves, and of the one that runs.
    pub(crate) security_epoch: u32,
}

impl MachineStanding<'_> {
    /// Why the release is not installed, and what to do about it where something can be done.
    pub(crate) fn find_objection(&self, release: &Manifest) -> Option<String> {
        let Self { record, architecture, floor, security_epoch } = self;
        if release.architecture != *architecture {
            return Some(format!("it is for {}, and this machine is {architecture}", release.architecture));
        }
        if release.name != record.name {
            return Some(format!(
                "it is the image {:?}, and this machine runs {:?}",
                release.name, record.name
            ));
        }
        if release.root.root_hash == record.root_hash {
            return Some("it is what runs already".to_owned());
        }
        // No verb lowers it: it is raised where an older release has a hole that must not come back.
        if release.security_epoch < *security_epoch {
            return Some(format!(
                "its security epoch is {}, and this machine has reached {security_epoch}",
                release.security_epoch
            ));
        }
        let floor = floor.as_ref().filter(|floor| release.version < floor.version)?;
        Some(format!(
            "this machine has proven {} already; 'initagent slots lower-floor {}' allows it",
            floor.version, release.version
        ))
    }
}

#[cfg(test)]
mod tests {
    use image_format::digest::Sha256;
    use image_format::manifest::RootPlacement;
    use image_format::slot::Slot;
    use image_format::version::Version;

    use super::super::tests::{data, manifest, record};
    use super::*;
    use crate::release_floor::Release;

    #[test]
    fn each_reason_is_found_and_only_that() {
        let record = record(Slot::A);
        let standing = |version: Version, security_epoch| MachineStanding {
            record: &record,
            architecture: "x86_64".to_owned(),
            floor: Some(ReleaseFloor::raise_floor(
                None,
                Release { slot: Slot::A, version: &version, root_hash: Sha256::digest_of(b"proven") },
            )),
            security_epoch,
        };
        let (release, _) = manifest(Version::new(2, 0, 0), &data(9));
        let release = Manifest { name: record.name.clone(), security_epoch: 3, ..release };
        let running = RootPlacement { root_hash: record.root_hash, ..release.root.clone() };

        assert_eq!(standing(Version::new(2, 0, 0), 3).find_objection(&release), None);
        for (standing, release, words) in [
            (standing(Version::new(2, 0, 1), 3), release.clone(), "lower-floor 2.0.0"),
            (standing(Version::new(1, 0, 0), 4), release.clone(), "its security epoch is 3"),
            (
                standing(Version::new(1, 0, 0), 3),
                Manifest { architecture: "s390x".to_owned(), ..release.clone() },
                "it is for s390x",
            ),
            (
                standing(Version::new(1, 0, 0), 3),
                Manifest { name: "metal".to_owned(), ..release.clone() },
                "metal",
            ),
            (standing(Version::new(1, 0, 0), 3), Manifest { root: running, ..release }, "runs already"),
        ] {
            let found = standing.find_objection(&release).unwrap_or_default();
            assert!(found.contains(words), "{words}: {found}");
        }
    }
}
