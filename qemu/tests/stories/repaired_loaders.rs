//! Damaged boot loaders are replaced from the verified root, and the disk starts by every firmware afterwards.
//!
//! The tests of `image-format` cut the power between the writes. Only a machine shows that its own first boot has not
//! made its boot loaders others than the references, and that firmware takes what was repaired.

use vm::disk::MachineDisk;
use vm::firmware::Firmware;

use crate::scene::{Scene, discard, run, switch_off, wait_until_back};

/// Each kind of damage: a signed program with other bytes, one that is no program, a file that is gone, and a core
/// image of GRUB for BIOS with other bytes.
const DAMAGE: &str = "set -e
    sudo initagent boot-loader check
    mkdir -p /tmp/esp; sudo mount /dev/vda2 /tmp/esp
    sudo initagent boot-loader check 2>&1 || echo mounted=$?
    sudo dd if=/dev/urandom of=/tmp/esp/EFI/BOOT/grubx64.efi bs=4096 seek=20 count=4 conv=notrunc status=none
    echo junk | sudo tee /tmp/esp/EFI/debian/shimx64.efi >/dev/null
    sudo rm /tmp/esp/EFI/debian/grub.cfg
    sudo umount /tmp/esp
    sudo dd if=/dev/urandom of=/dev/vda1 bs=512 seek=40 count=4 conv=notrunc status=none; sync
    sudo initagent boot-loader check || echo damaged=$?
    sudo initagent boot-loader repair
    sudo initagent boot-loader check && echo repaired=$?";

pub(crate) fn start_by_every_firmware(scene: &Scene) {
    let machine = scene.settled("loaders").firmware(Firmware::Uefi).build().unwrap();
    let mut running = machine.start_machine().unwrap();
    wait_until_back(&mut running);

    let said = run(&running, DAMAGE);

    let lines = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    assert!(said.contains("mounted=1\n") && said.contains("damaged=1\n"), "{said}");
    assert!(said.ends_with("repaired=0\n"), "{said}");
    assert_eq!((lines("to be replaced: "), lines("  replaced: ")), (4, 4), "{said}");
    // Eight that were whole before, four beside the damage and beside the repair, and eight after it.
    assert_eq!(lines("  same"), 8 + 4 + 4 + 8, "{said}");
    let (machine, _) = switch_off(running);
    for firmware in [Firmware::Bios, Firmware::Secure] {
        let disk = MachineDisk::Raw(machine.disk_path().to_owned());
        let again = scene.started_from(disk).name(&format!("loaders-{firmware:?}").to_lowercase());
        let mut running = again.firmware(firmware).build().unwrap().start_machine().unwrap();
        wait_until_back(&mut running);
        switch_off(running);
    }
    discard(&machine);
}
