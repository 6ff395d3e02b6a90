//! A machine that boots again is the machine it was, and as closed as it should be.

use vm::Running;

use crate::scene::{Scene, assert_calm, facts, run, throw_away, wait_until_up};

pub(crate) fn changes_nothing(scene: &Scene) {
    let before = &scene.settling().facts;
    let mut running = scene.settled("second").build().unwrap().start().unwrap();
    wait_until_up(&mut running);

    assert_eq!(&facts(&running), before);
    assert_calm(&running);
    // Otherwise udev finds it in the end, and nobody sees why the machine is slow.
    let log = run(&running, "sudo dmesg");
    let told =
        log.lines().find_map(|line| line.split_once("network cards: told udev of ")).map(|(_, cards)| cards);
    assert!(told.is_some_and(|cards| cards.split(", ").any(|card| card.starts_with('e'))), "{told:?}: {log}");

    is_closed(&running);
    throw_away(running);
}

/// What is listened on, what the kernel allows, what programs may do with root's rights, and what of it a mount
/// forbids: all of it defaults that a package or a kernel may change without a word.
fn is_closed(running: &Running) {
    let said = run(running, DEFAULTS);
    let facts: Vec<&str> = said.lines().collect();
    assert_eq!(facts, EXPECTED.lines().collect::<Vec<_>>(), "{said}");
}

const DEFAULTS: &str = "export PATH=$PATH:/usr/sbin
    sudo ss -Hlntu | awk '{print $1, $5}' | grep -v -E '127\\.0\\.0\\.|%|\\[::1\\]' | sort -u
    cd /proc/sys
    grep -s . fs/protected_* kernel/{kexec_load_disabled,kptr_restrict,sysrq} kernel/yama/ptrace_scope
    grep -s . net/ipv4/conf/{all,default,lo}/{accept_redirects,rp_filter} net/ipv6/conf/*/accept_redirects | sort -u | grep -v conf/e
    for place in /etc /home /root /srv /run/catamaran/state /opt /var; do
        echo $place $(findmnt -no OPTIONS $place | tr , '\\n' | grep -E '^no(suid|dev)$')
    done
    echo $(sudo find / -xdev -perm /6000 -type f -printf '%f\\n' | sort)
    cat /sys/module/module/parameters/sig_enforce
    lsmod | tail -n +2 | cut -d' ' -f1 | xargs modinfo -F signer | grep -c '^$'
    ls /run/credentials/@system 2>&1 | wc -l
    ls /usr/lib/systemd/system-generators
    sudo cat /var/lib/catamaran/release-floor.json | grep -c '\"A\"'";

const EXPECTED: &str = "";
