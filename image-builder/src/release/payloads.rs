//! Payloads in the one format there is: chunks, patches and their index.
//!
//! Knows how [`super::objects`] asks and how [`crate::payload`] and [`image_format::payload`] answer. Refuses to
//! decide anything.

use std::fs::File;
use std::path::Path;

use image_format::manifest::Manifest;
use image_format::payload::index::PayloadIndex;
use image_format::payload::object::ObjectReference;
use image_format::release::channel::FileReference;

use super::objects::{BaseRelease, OrderedPayload, PayloadError, PayloadFormat, PayloadObject, PayloadOrder};
use crate::payload::{
    PatchChoice, PayloadCosts, PayloadRequest, PreviousRelease, RELEASE_LEVEL, RootImage, write_payload,
};

/// The format, and with how many threads it works.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkPayloads {
    threads: usize,
}

impl ChunkPayloads {
    /// With as many threads as this computer has processors.
    pub(super) fn with_processors() -> Self {
        Self { threads: std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

impl PayloadFormat for ChunkPayloads {
    fn write(&self, order: &PayloadOrder<'_>) -> Result<OrderedPayload, PayloadError> {
        let placement = &order.manifest.root;
        let data_blocks = u32::try_from(placement.data_blocks())?;
        let root = RootImage::new(File::open(order.disk)?, order.offset, data_blocks);
        let previous = order.bases.iter().map(previous_release).collect::<Result<Vec<_>, _>>()?;
        let written = write_payload(&PayloadRequest {
            root: &root,
            salt: placement.salt.as_bytes(),
            root_hash: placement.root_hash,
            previous: &previous,
            repository: order.repository.clone(),
            // Old roots are files without a name there: a repository has room for a root, and /tmp may be memory.
            workspace: order.repository.clone(),
            level: RELEASE_LEVEL,
            threads: self.threads,
        })?;
        Ok(OrderedPayload { index: written.index, summary: summarize_costs(&written.costs) })
    }

    fn objects(&self, index: &[u8]) -> Result<Vec<PayloadObject>, PayloadError> {
        let object = |object: ObjectReference| PayloadObject {
            path: object.repository_path(),
            file: FileReference { bytes: object.bytes.into(), sha256: object.sha256 },
        };
        Ok(PayloadIndex::parse(index)?.named_objects().map(object).collect())
    }

    fn prove(&self, repository: &Path, manifest: &Manifest, index: &[u8]) -> Result<(), PayloadError> {
        let release = previous_release(&BaseRelease { manifest: manifest.clone(), index: index.to_vec() })?;
        let same_blocks = u64::from(release.index.data_blocks) == manifest.root.data_blocks();
        if release.index.root_hash != manifest.root.root_hash || !same_blocks {
            return Err("the index is of another root than the manifest".into());
        }
        // Putting the root together ends with its root hash, which is the proof. Not in the repository: who proves
        // a mirror may have no right to write it.
        release.rebuild_root(repository, &std::env::temp_dir(), self.threads)?;
        Ok(())
    }
}

fn previous_release(base: &BaseRelease) -> Result<PreviousRelease, PayloadError> {
    Ok(PreviousRelease {
        version: base.manifest.version.to_string(),
        index: PayloadIndex::parse(&base.index)?,
        salt: base.manifest.root.salt.as_bytes().to_vec(),
        // Its publisher chose how far back patches reach.
        patches: PatchChoice::Write,
    })
}

fn summarize_costs(costs: &PayloadCosts) -> String {
    let kilobytes = |bytes: u64| format!("{} kB", bytes.div_ceil(1000));
    let whole = format!("whole {}", kilobytes(costs.whole_bytes));
    let from = costs.from.iter().map(|base| format!("from {} {}", base.version, kilobytes(base.bytes)));
    let new = format!("new in the repository {}", kilobytes(costs.new_object_bytes));
    std::iter::once(whole).chain(from).chain([new]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::release::tests::site::{RELEASE, Site, version};

    use super::*;

    #[test]
    fn a_repository_with_real_payloads_is_sound_until_a_byte_changes() {
        let site = Site::new();
        let images = ["1.0.0", "1.1.0"].map(|text| site.build(text, text.as_bytes(), RELEASE));
        for image in &images {
            site.publish_with(image, &ChunkPayloads::with_processors()).unwrap();
        }

        let report = site.verify_with(&ChunkPayloads::with_processors());

        assert_eq!(report.findings, []);
        assert!(report.objects >= 4, "chunks and block lists of two releases, but {}", report.objects);
        let index = fs::read(site.repository.file_path("release/1.1.0/index")).unwrap();
        for object in ChunkPayloads::with_processors().objects(&index).unwrap() {
            let path = site.repository.file_path(&object.path);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[1..]).unwrap();
            assert!(!site.verify_with(&ChunkPayloads::with_processors()).is_sound(), "{}", object.path);
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(site.offered(), ["1.0.0", "1.1.0"]);
        assert!(site.repository.list_versions().unwrap().contains(&version("1.1.0")));
    }

    #[test]
    fn objects_that_are_sound_but_give_another_root_are_found_out() {
        let site = Site::new();
        let (one, other) = (site.build("1.0.0", b"one", RELEASE), site.build("1.1.0", b"other", RELEASE));
        site.publish_with(&one, &ChunkPayloads::with_processors()).unwrap();
        site.publish_with(&other, &ChunkPayloads::with_processors()).unwrap();
        let index = fs::read(site.repository.file_path("release/1.0.0/index")).unwrap();
        let manifest = site.manifest("1.1.0");

        let refused =
            ChunkPayloads::with_processors().prove(site.repository.folder(), &manifest, &index).unwrap_err();

        assert_eq!(refused.to_string(), "the index is of another root than the manifest");
    }
}
