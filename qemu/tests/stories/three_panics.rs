//! A good slot whose kernel panics in each boot gives way to the other after its tries.

use image_format::slot::Slot;

use crate::scene::{PATIENCE, Scene, slot, start_damaged, throw_away, wait_until_back};

/// Handed to systemd by the firmware. The kernel would wait ten seconds before it reboots, and burn them.
const UNIT: &str = "[Unit]
Description=Panics in slot A
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target
ConditionKernelCommandLine=catamaran.slot=a
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cd /proc; echo 1 >sys/kernel/panic; echo 1 >sys/kernel/sysrq; echo c >sysrq-trigger'
";

pub(crate) fn change_the_slot(scene: &Scene) {
    let machine = scene.two_slots("panics").system_unit("panic.service", UNIT, "sysinit.target").build();
    let mut running = start_damaged(machine.unwrap(), |_| {});

    for _ in 0..3 {
        for words in ["starting slot A", "Kernel panic"] {
            running.expect(words, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    let panics = running.console().text().unwrap().matches("Kernel panic - ").count();
    assert_eq!(panics, 3);
    throw_away(running);
}
