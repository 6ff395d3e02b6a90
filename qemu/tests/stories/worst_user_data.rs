//! User-data cannot cost the machine its SSH access: not by mistake, not by malice, not at the next boot either.

use vm::RunningMachine;

use crate::scene::{Scene, pull_the_plug, run, throw_away, wait_until_back};

/// Nothing in it can be read, so only the platform's word is left.
const BROKEN: &str = "#cloud-config
hostname: [broken
ssh_authorized_keys:
\t- none
runcmd: {{
";

/// Everything at once. `bootcmd` and `runcmd` never end, and in between the disk becomes full.
const WORST: &str = "#cloud-config
ssh_authorized_keys: [KEY]
bootcmd: [sleep infinity]
write_files:
  - {path: /etc/ssh/sshd_config, content: \"Garbage yes\\n\"}
  - {path: /etc/ssh/sshd_config.d/00-story.conf, content: \"Port none\\n\"}
  - {path: /etc/ssh/ssh_host_ed25519_key, content: \"no key\\n\"}
  - {path: /home/core/.ssh/authorized_keys, content: zap, permissions: '0777', owner: 'root:root'}
  - {path: /home/core, content: a file where the home is}
  - {path: /etc/sudoers.d/story, content: garbage, permissions: '0440'}
  - {path: /etc/systemd/system/ssh.service.d/10-story.conf, content: \"[Service]\\nExecStart=\\nExecStart=/bin/false\\n\"}
  - {path: /etc/systemd/system/service.d/story.conf, content: \"[Unit]\\nConditionPathExists=/nowhere\\n\"}
  - {path: /etc/systemd/system/first.service, content: \"[Unit]\\nBefore=ssh.service\\n[Service]\\nType=oneshot\\nExecStart=/bin/sleep infinity\\n\"}
  - {path: /etc/systemd/system/multi-user.target.wants/ssh.service, content: ''}
  - {path: /etc/ssh/sshd_not_to_be_run, content: ''}
  - {path: /etc/default/ssh, content: SSHD_OPTS=--nonsense}
coreos:
  units:
    - name: fails.service
      command: start
      content: |
        [Service]
        Type=oneshot
        ExecStart=/bin/false
    - name: waits.service
      command: start
      content: |
        [Unit]
        After=multi-user.target
        [Service]
        Type=oneshot
        ExecStart=/bin/sleep infinity
        [Install]
        WantedBy=multi-user.target
      enable: true
    - {name: ssh.service, mask: true}
    - name: ssh.service
      drop_ins:
        - {name: 20-story.conf, content: \"[Unit]\\nConflicts=multi-user.target\\n\"}
    - name: instead.service
      enable: true
      content: |
        [Unit]
        Conflicts=ssh.service
        [Service]
        ExecStart=/bin/sleep infinity
        [Install]
        Alias=ssh.service
        RequiredBy=sysinit.target
    - {name: reboot.target, command: start}
runcmd:
  - |
    mkdir /var/fill
    for size in 1G 64M 4M 256K 16K 4K; do
      number=0
      while fallocate -l $size /var/fill/$size.$number; do number=$((number + 1)); done
    done
    sync
    touch /run/full
    sleep infinity
";

pub(crate) fn broken_yaml(scene: &Scene) {
    let mut running = scene.fresh("broken").user_data(BROKEN).build().unwrap().start_machine().unwrap();
    wait_until_back(&mut running);

    let said = run(&running, "systemctl is-system-running --wait; hostname; initagent status || true");
    assert!(said.starts_with("degraded\nbroken\n"), "not by the platform's host name: {said}");
    assert!(said.contains("user-data:3:"), "nobody says where the mistake is: {said}");

    // Without host keys there is no ssh either.
    run(&running, "sudo rm /etc/ssh/ssh_host_* && sync");
    let mut running = pull_the_plug(running).start_machine().unwrap();
    std::fs::remove_file(&running.ssh_access().known_hosts).unwrap();
    wait_until_back(&mut running);
    throw_away(running);
}

pub(crate) fn everything(scene: &Scene) {
    let user_data = WORST.replace("KEY", scene.public_key());
    let mut running = scene.fresh("worst").user_data(user_data).build().unwrap().start_machine().unwrap();
    wait_until_back(&mut running);
    run(&running, "until [ -e /run/full ]; do sleep 2; done");

    said_what_went_wrong(&running);
    // The login until now is older than what was to break it.
    running.ssh_access().log_out();
    is_open(&running);
    is_full(&running);

    let mut running = pull_the_plug(running).start_machine().unwrap();
    wait_until_back(&mut running);
    is_open(&running);
    is_full(&running);
    throw_away(running);
}

/// That each of the bad things was really tried.
fn said_what_went_wrong(running: &RunningMachine) {
    let said =
        run(running, "initagent status || true; systemctl is-failed fails.service; systemctl list-jobs");
    for words in [
        "bootcmd",
        "/home/core",
        "sshd",
        "sudoers",
        "ssh.service cannot be masked",
        "10-story.conf",
        "20-story.conf",
        "story.conf of service",
        "wait for first.service",
        "instead.service conflicts",
        "reboot.target would end",
        "sshd_not_to_be_run",
        "/etc/default/ssh",
        "failed",
        "waits.service",
    ] {
        assert!(said.contains(words), "no word of {words}: {said}");
    }
}

fn is_open(running: &RunningMachine) {
    let said = run(
        running,
        "systemctl is-active ssh.service; sudo -n true && stat -c '%U %a' ~ ~/.ssh/authorized_keys",
    );
    assert_eq!(said, "active\ncore 755\ncore 600\n");
}

fn is_full(running: &RunningMachine) {
    let left: u64 = run(running, "df --output=avail -k /var | tail -n 1").trim().parse().unwrap();
    assert!(left < 1024, "{left} KiB are left");
}
