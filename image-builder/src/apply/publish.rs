//! The files beside the disk: manifest, lock, SBOM and sizes; and how all of them appear at once.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::packages::ResolvedPackages;
use super::root::{ComposedRoot, InitramfsFile, SealedSlot};
use super::{BuildContext, BuildError, BuiltImage, DiskTarget};
use crate::process;
use crate::reports::{crates, sbom, sizes};

/// Names of files of the output.
const DISK: &str = "disk.raw";

/// A finished text file.
pub(crate) struct ReportFile {
    name: &'static str,
    text: Vec<u8>,
}

/// Writes the reports' texts.
pub(crate) fn write_reports(
    site: &BuildContext<'_>,
    composed: &ComposedRoot,
    packages: &ResolvedPackages,
    sealed: &SealedSlot,
) -> Result<Vec<ReportFile>, BuildError> {
    let spec = &site.plan.spec;
    let sizes = sizes::measure_sizes(&composed.tree, &composed.database, &composed.kept);
    let subject =
        sbom::SbomSubject { name: &spec.name, version: &spec.version.to_string(), epoch: packages.epoch };
    let bill = sbom::sbom_document(
        &subject,
        &sbom::Contents {
            installed: &composed.database.installed,
            kept: &composed.kept,
            locked: packages.root_packages(),
            boot_loaders: packages.boot_loaders(&spec.boot),
            agent: packages.agent_digest(),
            crates: crates::of_program(sbom::AGENT),
        },
    );
    let json = |value: &serde_json::Value| {
        serde_json::to_vec_pretty(value)
            .map_err(|error| BuildError::Bytes { what: "a report", source: io::Error::other(error) })
    };
    Ok(vec![
        ReportFile { name: "manifest", text: sealed.envelope.clone() },
        ReportFile { name: "packages.lock", text: packages.lock_text().into_bytes() },
        ReportFile { name: "sbom.spdx.json", text: json(&bill)? },
        ReportFile { name: "sizes.json", text: json(&sizes.to_json())? },
        ReportFile { name: "sizes.txt", text: sizes.to_string().into_bytes() },
    ])
}

/// Syncs everything and moves it to the output folder, the disk last.
pub(crate) fn publish_image(
    site: &BuildContext<'_>,
    target: &DiskTarget<'_>,
    reports: &[ReportFile],
    sealed: &SealedSlot,
    composed: &ComposedRoot,
    initrd: &InitramfsFile,
) -> Result<BuiltImage, BuildError> {
    let output = &site.plan.facts.output;
    let what = |what| move |source| BuildError::Bytes { what, source };
    // Before the names: after a power cut a finished name must not stand for an unfinished file.
    target.disk.sync_image().map_err(what("the disk image"))?;
    let mut files = Vec::new();
    for ReportFile { name, text } in reports {
        let partial = site.workspace.join(name);
        fs::write(&partial, text).map_err(what("a report"))?;
        File::open(&partial).and_then(|file| file.sync_all()).map_err(what("a report"))?;
        files.push((partial, output.join(name)));
    }
    // Last, so that whoever waits for the disk finds all that belongs to it.
    files.push((target.disk.path().to_owned(), output.join(DISK)));
    for (partial, finished) in &files {
        fs::rename(partial, finished).map_err(what("the finished files"))?;
    }
    File::open(output).and_then(|folder| folder.sync_all()).map_err(what("the output folder"))?;
    Ok(BuiltImage {
        disk: output.join(DISK),
        version: site.plan.spec.version.to_string(),
        development: sealed.manifest.development,
        root_bytes: sealed.manifest.root.data_bytes,
        slot_bytes: site.plan.spec.partitions.root.get(),
        initrd_bytes: initrd.size as u64,
        packages: composed.kept.len(),
        peak_memory_bytes: process::peak_memory_bytes(),
        files: files.into_iter().map(|(_, finished)| finished).collect::<Vec<PathBuf>>(),
    })
}
