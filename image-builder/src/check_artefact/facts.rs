//! What there is to know of an artefact before it is uploaded, gathered once for all rules.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use disk_formats::bmap::encode_hex;
use disk_formats::disk::ReadDisk;
use image_format::bytes::Bytes;
use image_format::gpt::PartitionTable;
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;
use sha2::{Digest as _, Sha256};

use crate::artefact::ArtefactKind;
use crate::disk::DiskImage;
use crate::inspect::files::RootReader;
use crate::source::{SourceDisk, SourceError, SourceKind, open_source};
use disk_install::mapped::partition_table;

/// An artefact, looked at.
#[derive(Debug)]
pub(crate) struct ArtefactFacts {
    pub(crate) path: PathBuf,
    /// The name that `convert --to` has for it.
    pub(crate) kind: &'static str,
    pub(crate) file_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) table: Option<PartitionTable>,
    /// What is wrong with the archive around the disk, if there is one.
    pub(crate) archive_fault: Option<String>,
    pub(crate) system: Option<SystemFacts>,
}

/// What slot A holds.
#[derive(Debug, Default)]
pub(crate) struct SystemFacts {
    pub(crate) command_line: String,
    /// The kernel's lists of modules: those in files and those built in.
    pub(crate) modules: String,
    pub(crate) has_agent: bool,
}

/// Looks at an artefact.
pub(crate) fn gather_facts(path: &Path) -> Result<ArtefactFacts, SourceError> {
    let SourceDisk { kind, disk } = open_source(path)?;
    let (kind, archive_fault) = match kind {
        SourceKind::Disk(format) => (format.option_name(), None),
        SourceKind::Archive => archive_facts(path, disk.as_ref()),
    };
    let table = partition_table(disk.as_ref());
    let disk_bytes = disk.disk_size();
    let image = DiskImage::of_disk(path, disk);
    Ok(ArtefactFacts {
        path: path.to_owned(),
        kind,
        file_bytes: fs::metadata(path).map_or(0, |found| found.len()),
        disk_bytes,
        system: table.as_ref().and_then(|table| system_facts(&image, table)),
        table,
        archive_fault,
    })
}

fn system_facts(image: &DiskImage, table: &PartitionTable) -> Option<SystemFacts> {
    let slot = table.find_label(Partition::of_role(PartitionRole::Root(Slot::A)).label)?;
    let root = RootReader::open_root(image, slot.byte_offset(), Bytes::new(slot.byte_size().get())).ok()?;
    let environment = root.read_text("/boot/env").unwrap_or_default();
    let line = environment.lines().find_map(|line| line.strip_prefix("cmdline=")).unwrap_or_default();
    let mut modules = String::new();
    for kernel in root.list_folder("/usr/lib/modules").unwrap_or_default() {
        for list in ["modules.dep", "modules.builtin"] {
            let path = format!("/usr/lib/modules/{}/{list}", kernel.name);
            modules += &root.read_text(&path).unwrap_or_default();
        }
    }
    let has_agent = root.read("/usr/bin/initagent").is_ok();
    Some(SystemFacts { command_line: line.trim_end().to_owned(), modules, has_agent })
}

impl SystemFacts {
    /// Whether the kernel has a driver, whatever hyphens its file's name has.
    pub(crate) fn has_driver(&self, name: &str) -> bool {
        let mut files = self.modules.split_whitespace().filter_map(|word| word.rsplit('/').next());
        files.any(|file| file.split(".ko").next().is_some_and(|found| found.replace('-', "_") == name))
    }
}

/// The kind of an archive, and what is wrong with it.
fn archive_facts(path: &Path, disk: &dyn ReadDisk) -> (&'static str, Option<String>) {
    let names = read_names(path);
    match names {
        // Only Google's is compressed as a whole.
        Err(_) => ("gce", gce_fault(path, disk).unwrap_or_else(|error| Some(error.to_string()))),
        Ok(names) if names.iter().any(|name| name == "metadata.json") => {
            let kind = if names.iter().any(|name| name == "box.ovf") {
                ArtefactKind::VagrantVirtualbox
            } else {
                ArtefactKind::VagrantLibvirt
            };
            (kind.kind_name(), None)
        }
        Ok(_) => ("ova", ova_fault(path).unwrap_or_else(|error| Some(error.to_string()))),
    }
}

fn read_names(path: &Path) -> io::Result<Vec<String>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let entries = archive.entries_with_seek()?;
    entries.map(|entry| Ok(String::from_utf8_lossy(&entry?.path_bytes()).into_owned())).collect()
}

/// Google takes one file of that name, sparse in GNU's old way.
fn gce_fault(path: &Path, disk: &dyn ReadDisk) -> io::Result<Option<String>> {
    let stream = disk_formats::stream::Compression::Gzip.open_decoder(File::open(path)?)?;
    let mut archive = tar::Archive::new(stream);
    // Only the first header: what comes behind it would have to be unpacked.
    let Some(entry) = archive.entries()?.next() else { return Ok(Some("the archive is empty".to_owned())) };
    let entry = entry?;
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if name != "disk.raw" {
        return Ok(Some(format!("its first file is {name:?}, not disk.raw")));
    }
    let sparse = entry.header().entry_type().is_gnu_sparse() || disk.disk_size() == 0;
    Ok((!sparse).then(|| "disk.raw is not sparse (tar --format=oldgnu -S)".to_owned()))
}

fn name_suffix(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// An OVF first, and every digest of the manifest holds.
fn ova_fault(path: &Path) -> io::Result<Option<String>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let (mut manifest, mut digests) = (String::new(), Vec::new());
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if index == 0 && name_suffix(&name) != "ovf" {
            return Ok(Some(format!("its first file is {name:?}, not the OVF")));
        }
        if name_suffix(&name) == "mf" {
            entry.take(1 << 20).read_to_string(&mut manifest)?;
            continue;
        }
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
        while let read @ 1.. = entry.read(&mut buffer)? {
            hasher.update(&buffer[..read]);
        }
        digests.push((name, encode_hex(&hasher.finalize())));
    }
    let wrong =
        digests.iter().find(|(name, digest)| !manifest.contains(&format!("SHA256({name})= {digest}")));
    Ok(wrong.map(|(name, _)| format!("its manifest has no SHA256 that is {name}'s")))
}
