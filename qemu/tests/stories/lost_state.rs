//! STATE has lost its superblock: the machine answers, says what is wrong, and begins anew when a person says so.

use vm::firmware::Firmware;

use crate::scene::{PATIENCE, Scene, run, start_damaged, throw_away, wait_until_back, wait_until_up};

/// Where ext4's superblock lies: behind the room for a boot sector.
const SUPERBLOCK: u64 = 1024;

/// What people and programs are told, and what was done of the user-data.
const TOLD: &str = "
    cat /run/motd.d/50-catamaran /run/issue.d/50-catamaran.issue
    findmnt -no FSTYPE /run/catamaran/state
    until sudo initagent status --wait >/tmp/status; test $? = 2; do sleep 1; done; cat /tmp/status
    sudo initagent state check; echo check=$?
    sudo initagent state reset </dev/null; echo unasked=$?
    sudo initagent state check --json | tr -d ' \\n'; echo
    hostname
    test ! -e /etc/story -a ! -e /etc/systemd/system/panic.service && echo only-the-way-in";

/// Restarts once ssh has said that all went well.
const RESET: &str = "set -e
    sudo initagent state reset --yes
    nohup sh -c 'sleep 1; sudo systemctl reboot' >/dev/null 2>&1 &";

pub(crate) fn without_superblock(scene: &Scene) {
    let machine = scene.settled("lost-state").firmware(Firmware::Bios).build().unwrap();
    let mut running = start_damaged(machine, |map| {
        map.edit().write(map.partition("STATE").start + SUPERBLOCK, &[0; 1024]).unwrap();
    });
    running.wait_for_words("STATE is not in use", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(&mut running);

    let told = run(&running, TOLD);

    assert_eq!(told.matches("STATE IS NOT IN USE: /dev/vda6 holds no file system").count(), 2, "{told}");
    assert_eq!(told.matches("state: NOT IN USE (/dev/vda6)").count(), 2, "{told}");
    for line in ["tmpfs", "check=1", "unasked=1", "settled", "only-the-way-in"] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    assert!(told.contains("\"condition\":\"volatile\",\"damaged\":true"), "{told}");

    let said = run(&running, RESET);

    assert!(said.contains("a whole ext4 file system") && said.contains("restart the machine"), "{said}");
    running.wait_for_words("starting slot", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    // Its host keys were on STATE, and are others now.
    std::fs::remove_file(&running.ssh_access().known_hosts).unwrap();
    wait_until_up(&mut running);
    let said = run(
        &running,
        "set -e; sudo initagent status >/dev/null; sudo initagent state check; cat /etc/story
         findmnt -no FSTYPE /run/catamaran/state; test ! -e /run/catamaran/volatile-state",
    );
    assert_eq!(said, "state: healthy (/dev/vda6)\nonce upon a time\next4\n");
    throw_away(running);
}
