//! A good slot whose kernel panics in each boot gives way to the other after its tries.

use image_format::slot::Slot;
use vm::firmware::Firmware;

use crate::scene::{PATIENCE, Scene, run, slot, throw_away, wait_until_back, wait_until_up};

const UNIT: &str = "[Unit]
Description=Panics in slot A
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target
ConditionKernelCommandLine=catamaran.slot=a
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger'
[Install]
WantedBy=sysinit.target
";

pub(crate) fn change_the_slot(scene: &Scene) {
    let mut running = scene.damaged("panics", Firmware::Bios, |_| {});
    wait_until_up(&mut running);
    assert_eq!(slot(&running), Slot::A);
    run(
        &running,
        &format!(
            "sudo tee /etc/systemd/system/panic.service >/dev/null <<'END'\n{UNIT}END\n
             sudo systemctl enable panic.service && sync"
        ),
    );
    running.reset().unwrap();

    for _ in 0..3 {
        running.expect("Kernel panic", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    let panics = running.console().text().unwrap().matches("Kernel panic").count();
    assert_eq!(panics, 3);
    throw_away(running);
}
