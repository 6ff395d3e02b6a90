//! A machine that boots again is the machine it was, also with copies of its disk beside it and whatever else
//! somebody has attached to it meanwhile; and it is as closed as it should be.

use std::ffi::OsString;

use vm::RunningMachine;
use vm::options::Bus;
use vm::seed::SeedData;

use crate::scene::{Scene, assert_calm, assert_runs_from_own_disk, facts, run, throw_away, wait_until_up};

/// What a hypervisor may hand to systemd, and an image of ours does not take.
const CREDENTIAL: [&str; 2] = ["-smbios", "type=11,value=io.systemd.credential:story=told"];

pub(crate) fn changes_nothing(scene: &Scene) {
    let before = &scene.settling().facts;
    let (copy, fresh) = (scene.settled_copy(), scene.fresh_copy());
    let attached = CREDENTIAL.map(OsString::from).into_iter().chain(stray_volume(scene));
    let machine = scene.settled("second").beside(copy.path(), Bus::Virtio).beside(fresh.path(), Bus::Scsi);
    let mut running = machine.extra(attached).build().unwrap().start_machine().unwrap();
    wait_until_up(&mut running);

    assert_runs_from_own_disk(&running);

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

    is_closed(&running);
    throw_away(running);
    copy.assert_untouched();
    fresh.assert_untouched();
}

/// What is listened on, what the kernel allows, what programs may do with root's rights, and what of it a mount
/// forbids: all of it defaults that a package or a kernel may change without a word.
fn is_closed(running: &RunningMachine) {
    let said = run(running, DEFAULTS);
    let facts: Vec<&str> = said.lines().collect();
    assert_eq!(facts, EXPECTED.lines().collect::<Vec<_>>(), "{said}");
}

/// The card's name is the firmware's choice.
const DEFAULTS: &str = "export PATH=$PATH:/usr/sbin LC_ALL=C
    sudo ss -Hlntu | awk '{print $1, $5}' | grep -v -E '127\\.0\\.0\\.|%|\\[::1\\]' | sort -u
    cd /proc/sys
    sudo grep . fs/protected_* kernel/{kexec_load_disabled,kptr_restrict,sysrq,tainted} kernel/yama/ptrace_scope
    grep . net/ipv4/conf/{all,default,e*}/{accept_redirects,rp_filter} net/ipv6/conf/{all,default,e*}/accept_redirects |
        sed 's|conf/e[^/]*|conf/CARD|'
    for place in /etc /home /root /srv /run/catamaran/state /opt /var; do
        echo $place $(findmnt -no OPTIONS $place | tr , '\\n' | grep -E '^no(suid|dev)$')
    done
    echo $(sudo find / -xdev -perm /6000 -type f -printf '%f\\n' | sort)
    cat /sys/module/module/parameters/sig_enforce
    sudo cat /run/credentials/@system/story 2>/dev/null || echo no credentials
    resolvectl status | grep -o -E '[+-](LLMNR|mDNS)' | sort -u
    sudo grep -c '\"A\"' /var/lib/catamaran/release-floor.json";

const EXPECTED: &str = "tcp 0.0.0.0:22
tcp [::]:22
fs/protected_fifos:1
fs/protected_hardlinks:1
fs/protected_regular:2
fs/protected_symlinks:1
kernel/kexec_load_disabled:1
kernel/kptr_restrict:1
kernel/sysrq:176
kernel/tainted:0
kernel/yama/ptrace_scope:1
net/ipv4/conf/all/accept_redirects:0
net/ipv4/conf/all/rp_filter:0
net/ipv4/conf/default/accept_redirects:0
net/ipv4/conf/default/rp_filter:2
net/ipv4/conf/CARD/accept_redirects:0
net/ipv4/conf/CARD/rp_filter:2
net/ipv6/conf/all/accept_redirects:0
net/ipv6/conf/default/accept_redirects:0
net/ipv6/conf/CARD/accept_redirects:0
/etc nosuid nodev
/home nosuid nodev
/root nosuid nodev
/srv nosuid nodev
/run/catamaran/state nosuid nodev
/opt
/var
dbus-daemon-launch-helper mount passwd ssh-agent su sudo umount unix_chkpwd
Y
no credentials
-LLMNR
-mDNS
1
";

/// A volume that would make it another machine, and run a script as root.
fn stray_volume(scene: &Scene) -> [OsString; 4] {
    let seed = SeedData {
        instance_id: "i-evil".to_owned(),
        host_name: "evil".to_owned(),
        public_keys: vec![format!("{} evil", scene.public_key().trim_end())],
        user_data: Some(b"#cloud-config\nbootcmd: [touch /run/evil]\nruncmd: [touch /etc/evil]\n".to_vec()),
        network_config: None,
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
