//! A machine that boots again is the machine it was, whatever somebody has attached to it meanwhile.

use std::ffi::OsString;

use vm::seed::Seed;

use crate::scene::{Scene, assert_calm, facts, run, throw_away, wait_until_up};

pub(crate) fn changes_nothing(scene: &Scene) {
    let before = &scene.settling().facts;
    let mut running = scene.settled("second").extra(stray_volume(scene)).build().unwrap().start().unwrap();
    wait_until_up(&mut running);

    assert_eq!(&facts(&running), before);
    assert_calm(&running);
    // Otherwise udev finds it in the end, and nobody sees why the machine is slow.
    let log = run(&running, "sudo dmesg");
    let told =
        log.lines().find_map(|line| line.split_once("network cards: told udev of ")).map(|(_, cards)| cards);
    assert!(told.is_some_and(|cards| cards.split(", ").any(|card| card.starts_with('e'))), "{told:?}: {log}");

    let said =
        run(&running, "ls /run/evil /etc/evil 2>&1 || true; sudo initagent status; sudo initagent provision");
    assert_eq!(said.matches("No such file").count(), 2, "{said}");
    assert!(said.contains("refused:  nocloud (/dev/") && said.contains("provision: once"), "{said}");
    assert!(!run(&running, "cat /run/catamaran/keys/core").contains("evil"));

    throw_away(running);
}

/// A volume that would make it another machine, and run a script as root.
fn stray_volume(scene: &Scene) -> [OsString; 4] {
    let seed = Seed {
        instance_id: "i-evil".to_owned(),
        host_name: "evil".to_owned(),
        public_keys: vec![format!("{} evil", scene.public_key().trim_end())],
        user_data: Some(b"#cloud-config\nbootcmd: [touch /run/evil]\nruncmd: [touch /etc/evil]\n".to_vec()),
    };
    let volume = scene.keep("stray.img", &seed.to_disk().unwrap());
    let file = volume.display();
    [
        "-blockdev".to_owned(),
        format!("driver=raw,node-name=stray,read-only=on,file.driver=file,file.filename={file}"),
        "-device".to_owned(),
        "virtio-blk-pci,drive=stray".to_owned(),
    ]
    .map(OsString::from)
}
