//! The image in the formats of hypervisors, each one started as it is.
//!
//! `qemu-img compare` proves that a file holds the same disk. These stories prove that the firmware, the selector and
//! the kernel can read it through the driver that a hypervisor has for the format. One story for each format, so that
//! a sample takes one or two. The file itself stays as it was: the machine writes into an overlay.

use std::path::{Path, PathBuf};
use std::process::Command;

use vm::disk::BackingFormat;
use vm::firmware::Firmware;

use crate::runner::Story;
use crate::scene::{Scene, throw_away, wait_until_back};

/// A format, and how its machine is started.
struct Artefact {
    /// By the name that `image-builder convert` knows.
    kind: &'static str,
    /// The file that the conversion makes of `disk.raw`.
    file: &'static str,
    format: BackingFormat,
    /// In turns, so that both kinds of firmware read each compression.
    firmware: Firmware,
}

const ARTEFACTS: [Artefact; 8] = [
    Artefact { kind: "ova", file: "disk.ova", format: BackingFormat::Vmdk, firmware: Firmware::Uefi },
    Artefact { kind: "qcow2", file: "disk.qcow2", format: BackingFormat::Qcow2, firmware: Firmware::Uefi },
    Artefact {
        kind: "qcow2-zstd",
        file: "disk-zstd.qcow2",
        format: BackingFormat::Qcow2,
        firmware: Firmware::Bios,
    },
    Artefact {
        kind: "vagrant-libvirt",
        file: "disk-libvirt.box",
        format: BackingFormat::Qcow2,
        firmware: Firmware::Bios,
    },
    Artefact { kind: "vhd", file: "disk.vhd", format: BackingFormat::Vhd, firmware: Firmware::Bios },
    Artefact {
        kind: "vhd-fixed",
        file: "disk-fixed.vhd",
        format: BackingFormat::Vhd,
        firmware: Firmware::Uefi,
    },
    Artefact { kind: "vhdx", file: "disk.vhdx", format: BackingFormat::Vhdx, firmware: Firmware::Uefi },
    Artefact { kind: "vmdk", file: "disk.vmdk", format: BackingFormat::Vmdk, firmware: Firmware::Bios },
];

/// A story for each format, if the program that converts is at hand.
pub(crate) fn stories() -> Vec<Story> {
    let Some(builder) = std::env::var_os("CATAMARAN_BUILDER").map(PathBuf::from) else { return Vec::new() };
    ARTEFACTS
        .into_iter()
        .map(|artefact| {
            let builder = builder.clone();
            Story::sampled(format!("artefact_{}_starts", artefact.kind), move |scene| {
                starts(scene, &builder, &artefact);
            })
        })
        .collect()
}

fn starts(scene: &Scene, builder: &Path, artefact: &Artefact) {
    let folder = tempfile::tempdir().unwrap();
    run_program(
        Command::new(builder)
            .arg("convert")
            .arg(scene.image())
            .args(["--to", artefact.kind, "--out"])
            .arg(folder.path()),
    );
    let disk = unpacked_disk(&folder.path().join(artefact.file), artefact.kind);

    let machine = scene.over(&disk, artefact.format);
    let machine = machine.name(artefact.kind).firmware(artefact.firmware).build().unwrap();
    let mut running = machine.start().unwrap();

    wait_until_back(&mut running);
    throw_away(running);
}

/// The disk in an archive, by the program with which people unpack it; another file is the disk itself.
fn unpacked_disk(file: &Path, kind: &str) -> PathBuf {
    let name = match kind {
        "ova" => "disk-disk1.vmdk",
        "vagrant-libvirt" => "box.img",
        _ => return file.to_owned(),
    };
    let folder = file.with_file_name("unpacked");
    std::fs::create_dir(&folder).unwrap();
    run_program(Command::new("tar").arg("-xf").arg(file).arg("-C").arg(&folder));
    folder.join(name)
}

fn run_program(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
