//! A machine installs itself on a second disk, and that disk starts alone.
//!
//! The unit tests of `disk-install` cut the power and forge signatures. What only a machine shows is here: the table of
//! real disks, the refusal of the disk that runs, firmware that takes the new disk, and a first boot that makes it grow.

use vm::disk::MachineDisk;
use vm::firmware::Firmware;
use vm::options::{Bus, SeedBy};

use crate::scene::{MORE, Scene, run, throw_away, wait_until_back, wait_until_up};

/// Bytes at its start that are not zero, as used disks have them.
const USED_HEAD: usize = 4 << 20;

pub(crate) fn to_a_second_disk(scene: &Scene) {
    let disk = scene.keep("second.raw", &vec![0xaa; USED_HEAD]);
    // Of a size that no other disk has, by which it is found.
    let size = scene.disk_size() - MORE / 2;
    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(size).unwrap();
    let machine = scene.fresh("installing").beside(&disk, Bus::Virtio).build().unwrap();
    let mut running = machine.start_machine().unwrap();
    wait_until_back(&mut running);

    let said = run(&running, "sudo initagent install transport=virtio --yes 2>&1 || echo refused");
    assert!(said.contains("match; nothing was written") && said.ends_with("refused\n"), "{said}");
    let said =
        run(&running, &format!("sudo initagent install 'size>={}' --yes 2>&1 || echo refused", size + 1));
    assert!(said.contains("is not written to: ") && said.ends_with("refused\n"), "{said}");
    let user_data = format!(
        "#cloud-config\nhostname: installed\nssh_authorized_keys:\n  - {}\n",
        scene.public_key().trim()
    );
    let script = format!(
        "set -e; printf '%s' '{user_data}' >/tmp/user-data
         sudo initagent install 'size={size}' --user-data /tmp/user-data --yes 2>&1"
    );
    let said = run(&running, &script);
    assert!(said.contains("and read it back; signed: slot A"), "{said}");
    throw_away(running);

    let machine = scene.started_from(MachineDisk::Raw(disk)).name("installed").seed_by(SeedBy::Nothing);
    let mut running = machine.firmware(Firmware::Uefi).build().unwrap().start_machine().unwrap();
    wait_until_up(&mut running);

    let said = run(&running, "hostname; df --output=size -BM /var | tail -n 1; sudo initagent slots");
    assert!(said.starts_with("installed\n"), "{said}");
    let room: u64 = said.lines().nth(1).unwrap().trim().trim_end_matches('M').parse().unwrap();
    assert!(room > 1000, "STATE did not grow: {said}");
    throw_away(running);
}
