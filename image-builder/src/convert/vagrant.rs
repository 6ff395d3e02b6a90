//! Vagrant boxes, and the catalogue from which `vagrant box add` and `vagrant box update` take them.
//!
//! Format: <https://developer.hashicorp.com/vagrant/docs/boxes/format>. A box is a plain tar, which `vagrant` unpacks with
//! bsdtar: its disk is compressed already.

use std::fs;
use std::io;

use disk_formats::bmap::encode_hex;
use disk_formats::disk::ReadDisk;
use disk_formats::format::Format;
use image_format::bytes::Bytes;
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::archive::TarWriter;
use super::ova::{OvfMachine, used_bytes};
use super::{ConvertError, Job, MadeArtefact};
use crate::artefact::ArtefactKind;
use crate::disk::DiskImage;
use crate::inspect::files::RootReader;
use disk_install::mapped::partition_table;
use disk_install::stream::file_sha256;

/// The name of the boxes in a catalogue.
const BOX_NAME: &str = "catamaran";

/// Writes a box out of the disk that the pass made.
pub(crate) fn write_box(job: &Job<'_>, disk: &dyn ReadDisk, kind: ArtefactKind) -> io::Result<()> {
    let file = fs::File::create_new(job.partial_path(kind.file_suffix()))?;
    let mut tar = TarWriter::new(file);
    if kind == ArtefactKind::VagrantVirtualbox {
        add_virtualbox_files(job, disk, &mut tar)?;
    } else {
        let provider = if kind == ArtefactKind::VagrantQemu { "qemu" } else { "libvirt" };
        // Whole GB, of which a machine's disk must have at least so many.
        let gigabytes = disk.disk_size().div_ceil(1 << 30);
        let metadata = json!({
            "architecture": "amd64", "format": "qcow2", "provider": provider, "virtual_size": gigabytes,
        });
        tar.add_text("metadata.json", &json_line(&metadata))?;
        tar.add_text("Vagrantfile", render_vagrantfile("").as_bytes())?;
        tar.add_file("box.img", &job.partial_path(Format::Qcow2.file_suffix()))?;
    }
    tar.finish_archive()
}

fn add_virtualbox_files(job: &Job<'_>, disk: &dyn ReadDisk, tar: &mut TarWriter) -> io::Result<()> {
    let mac = box_mac(&job.stem);
    let vmdk = job.partial_path(Format::Vmdk.file_suffix());
    let machine = OvfMachine {
        name: &job.stem,
        disk_name: "box-disk1.vmdk",
        disk_bytes: disk.disk_size(),
        file_bytes: fs::metadata(&vmdk)?.len(),
        used_bytes: used_bytes(&vmdk)?,
    };
    let metadata = json!({ "architecture": "amd64", "provider": "virtualbox" });
    tar.add_text("metadata.json", &json_line(&metadata))?;
    tar.add_text(
        "Vagrantfile",
        render_vagrantfile(&format!("  config.vm.base_mac = \"{mac}\"\n")).as_bytes(),
    )?;
    tar.add_text("box.ovf", machine.for_virtualbox(&mac).as_bytes())?;
    tar.add_file("box-disk1.vmdk", &vmdk)
}

fn json_line(value: &serde_json::Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// What every machine of the box gets. The root is read-only, so that no folder is mounted into it unasked.
fn render_vagrantfile(more: &str) -> String {
    format!(
        "Vagrant.configure(\"2\") do |config|\n{more}  config.ssh.username = \"core\"\n  \
         config.ssh.insert_key = false\n  config.vm.synced_folder \".\", \"/vagrant\", disabled: true\nend\n"
    )
}

/// A MAC of `VirtualBox`'s own range, which OVF and Vagrantfile must share.
fn box_mac(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    format!("080027{}", encode_hex(&digest[..3]).to_uppercase())
}

/// Writes the catalogue of the boxes that were made.
pub(crate) fn write_catalogue(
    job: &Job<'_>,
    disk: &dyn ReadDisk,
    made: &[MadeArtefact],
) -> Result<MadeArtefact, ConvertError> {
    let path = job.request.folder.join(format!("{}-vagrant.json", job.stem));
    let failed = |source| ConvertError::Write { path: path.clone(), source };
    let boxes = made.iter().filter(|made| made.kind.starts_with("vagrant-"));
    let mut providers = Vec::new();
    for MadeArtefact { kind, path, .. } in boxes {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let url = match job.request.box_url {
            Some(base) => format!("{}/{name}", base.trim_end_matches('/')),
            None => format!("file://{}", fs::canonicalize(path).map_err(failed)?.display()),
        };
        providers.push(json!({
            "architecture": "amd64",
            "checksum": file_sha256(path).map_err(failed)?,
            "checksum_type": "sha256",
            "default_architecture": true,
            "name": kind.trim_start_matches("vagrant-"),
            "url": url,
        }));
    }
    let version = box_version(job, disk);
    let catalogue = json!({
        "description": "Catamaran, a cluster operating system",
        "name": BOX_NAME,
        "versions": [{ "providers": providers, "version": version }],
    });
    let text = format!("{catalogue:#}\n");
    fs::write(&path, &text).map_err(failed)?;
    Ok(MadeArtefact { kind: "vagrant-catalogue", path, bytes: text.len() as u64 })
}

/// The version that slot A has; a disk that is none of ours has none.
fn box_version(job: &Job<'_>, disk: &dyn ReadDisk) -> String {
    let found = || {
        let table = partition_table(disk)?;
        let entry = table.find_label(Partition::of_role(PartitionRole::Root(Slot::A)).label)?;
        let image = DiskImage::open_read_only(job.request.image).ok()?;
        let size = Bytes::new(entry.byte_size().get());
        let root = RootReader::open_root(&image, entry.byte_offset(), size).ok()?;
        let release = root.read_text("/usr/lib/os-release")?;
        let version = release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
        Some(version.trim_matches('"').to_owned())
    };
    found().unwrap_or_else(|| "0".to_owned())
}
