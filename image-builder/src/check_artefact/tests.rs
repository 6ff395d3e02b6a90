use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use image_format::bytes::Bytes;
use image_format::layout::{DiskLayout, PartitionSizes};

use super::facts::{ArtefactFacts, SystemFacts};
use super::places::PLACES;
use super::*;

fn facts(kind: &'static str) -> ArtefactFacts {
    let sizes = PartitionSizes { root: Bytes::from_mib(8), state: Bytes::from_mib(8) };
    let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(1), sizes).unwrap();
    ArtefactFacts {
        path: PathBuf::from("disk.img"),
        kind,
        file_bytes: 1 << 20,
        disk_bytes: 3 << 30,
        table: Some(layout.partition_table()),
        archive_fault: None,
        system: Some(SystemFacts {
            command_line: "root=/dev/a console=tty0 console=ttyS0,115200n8".to_owned(),
            modules: "kernel/drivers/scsi/hv_storvsc.ko.xz: a\nkernel/drivers/net/hv_netvsc.ko.xz:\nkernel/fs/udf/udf.ko\n"
                .to_owned(),
            has_agent: true,
        }),
    }
}

fn place(name: &str) -> &'static Place {
    PLACES.into_iter().find(|place| place.name == name).unwrap()
}

#[test]
fn what_a_place_takes_passes_and_shows_the_commands() {
    let report = report_artefact(&facts("vhd-fixed"), place("azure"));

    assert!(report.all_hold(), "{report}");
    assert!(report.to_string().contains("azcopy copy disk.img"), "{report}");
}

#[test]
fn each_rule_that_does_not_hold_says_what_to_do() {
    let mut facts = facts("qcow2");
    facts.disk_bytes += 512;
    facts.table = None;
    facts.system.as_mut().unwrap().modules.clear();
    facts.system.as_mut().unwrap().command_line.clear();

    let report = report_artefact(&facts, place("azure"));

    let text = report.to_string();
    for says in [
        "it is qcow2: image-builder convert IMAGE --to vhd-fixed",
        "no partition table",
        "the kernel has no hv_storvsc, hv_netvsc, udf",
        "add console=ttyS0",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(!report.all_hold() && !text.contains("azcopy"), "{text}");
}

#[test]
fn a_disk_of_somebody_else_is_not_judged_by_its_inside() {
    let report = report_artefact(&ArtefactFacts { system: None, ..facts("vhd-fixed") }, place("azure"));

    assert!(report.all_hold());
    assert!(report.rules.iter().any(|rule| rule.verdict == Verdict::Unknown));
}

#[test]
fn places_are_named_once_and_in_order() {
    let names: Vec<_> = PLACES.iter().map(|place| place.name).collect();

    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    for place in PLACES {
        assert!(place.commands.contains("{FILE}") && place.commands.ends_with('\n'), "{}", place.name);
    }
}

/// The guide has a row for each, with what was tried.
#[test]
fn the_guide_knows_every_place() {
    let guide = include_str!("../../../docs/formats.md");
    for Place { name, title, tested, .. } in PLACES {
        let row = guide.lines().find(|line| line.contains(&format!("| `{name}` | {title} |")));
        assert!(row.is_some_and(|row| row.contains(tested)), "{name}: {row:?}");
    }
}

#[test]
fn an_archive_is_known_by_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let file = File::create_new(&image).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&[1; 512], 0).unwrap();
    let request = crate::convert::ConvertRequest {
        image: &image,
        kinds: &crate::artefact::ArtefactKind::ALL,
        folder: &folder.path().join("out"),
        hardware_version: 15,
        box_url: None,
        threads: 1,
        output: crate::progress::OutputFormat::People,
    };
    let made = crate::convert::convert_image(&request, &crate::process::InterruptFlag::default()).unwrap();

    for artefact in
        made.iter().filter(|made| !matches!(made.kind, "bmap" | "vagrant-catalogue" | "vagrant-qemu"))
    {
        let facts = facts::gather_facts(&artefact.path).unwrap();
        assert_eq!((facts.kind, facts.archive_fault), (artefact.kind, None));
    }
}
