//! From the untouched image to a machine that is as its cloud-config says, by each firmware.
//!
//! Each firmware stands in another place, as they do in the world, and is told everything by it.

use vm::RunningMachine;
use vm::firmware::Firmware;
use vm::options::{Bus, DeviceSet};
use vm::ssh::SshAccess;

use crate::clouds::{self, Cloud};
use crate::scene::{PATIENCE, Scene, assert_calm, assert_runs_from_own_disk, run, throw_away, wait_until_up};
use crate::secrets;

pub(crate) fn bios(scene: &Scene) {
    // No platform says the address here, and how soon an interface has one is the host's mood.
    let user_data = user_data(scene, ENGINES).replace("$private_ipv4", "10.0.2.15") + "hostname: first\n";
    let cloud = Cloud {
        builder: scene.fresh("first-bios").user_data(user_data),
        hostname: "first",
        facts: &["CATAMARAN_INSTANCE_ID=i-story", "CATAMARAN_PLATFORM=nocloud"],
    };
    configures_the_machine(cloud, Firmware::Bios);
}

pub(crate) fn uefi(scene: &Scene) {
    configures_the_machine(clouds::gce(scene, &user_data(scene, ENGINES)), Firmware::Uefi);
}

pub(crate) fn secure(scene: &Scene) {
    configures_the_machine(clouds::ec2(scene, &user_data(scene, ENGINES)), Firmware::Secure);
}

pub(crate) fn digital_ocean(scene: &Scene) {
    throw_away(is_configured(clouds::digital_ocean(scene, &user_data(scene, ""))));
}

/// The image lies on other disks too: one never booted, and one of a machine that was. The kernel finds both
/// before the disk that the firmware starts from. The user-data is full of secrets, and this machine needs none.
pub(crate) fn config_drive(scene: &Scene) {
    let (settled, fresh) = (scene.settled_copy(), scene.fresh_copy());
    let cloud = clouds::config_drive(scene, &secrets::planted_in(&user_data(scene, "")));
    let builder = cloud.builder.devices(DeviceSet::Scsi);
    let builder = builder.beside(settled.path(), Bus::Virtio).beside(fresh.path(), Bus::Virtio);

    let running = is_configured(Cloud { builder, ..cloud });

    assert_runs_from_own_disk(&running);
    secrets::are_hidden(&running);
    is_told_by_vagrant(&running);
    throw_away(running);
    settled.assert_untouched();
    fresh.assert_untouched();
}

/// The way the users of the first hour write it.
const USER_DATA: &str = "#cloud-config
users:
  - name: ada
    groups:
      - sudo
    ssh_authorized_keys:
      - KEY
write_files:
  - path: /etc/story.conf
    permissions: '0640'
    owner: root:docker
    content: |
      chapter one, at $private_ipv4
coreos:
  etcd2:
    name: first
    listen-client-urls: http://127.0.0.1:2379
    advertise-client-urls: http://127.0.0.1:2379
  units:
    - name: hello.service
      command: start
      content: |
        [Unit]
        Description=Says hello
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/sh -c 'echo hello >/run/hello'
";

/// More units.
const ENGINES: &str = "    - name: etcd2.service
      command: start
    - name: docker.service
      command: start
    - name: fleet.service
      command: start
";

fn user_data(scene: &Scene, units: &str) -> String {
    USER_DATA.replace("KEY", scene.public_key()) + units
}

fn configures_the_machine(cloud: Cloud, firmware: Firmware) {
    let cloud = Cloud { builder: cloud.builder.firmware(firmware), ..cloud };
    let running = is_configured(cloud);
    runs_etcd(&running);
    runs_a_container(&running);
    keeps_fleet_from_nobody(&running);
    asks_for_a_name(&running);
    assert_eq!(is_secure(&running), firmware == Firmware::Secure);
    throw_away(running);
}

/// Name, user, file, unit and facts; the platform's key is proved by every command.
fn is_configured(cloud: Cloud) -> RunningMachine {
    let mut running = cloud.builder.build().unwrap().start_machine().unwrap();
    wait_until_up(&mut running);
    let said = run(
        &running,
        "hostname; id -nG ada; stat -c '%a %U %G' /etc/story.conf; sudo cat /etc/story.conf; cat /run/hello
         systemctl is-active hello.service; cat /run/metadata/catamaran",
    );
    let mut lines = said.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), cloud.hostname);
    assert!(next().split(' ').any(|group| group == "sudo"), "{said}");
    assert_eq!(next(), "640 root docker");
    assert_eq!(next(), "chapter one, at 10.0.2.15");
    assert_eq!(next(), "hello");
    assert_eq!(next(), "active");
    let environment: Vec<&str> = lines.collect();
    for fact in cloud.facts {
        assert!(environment.contains(fact), "no {fact} in {environment:#?}");
    }
    let ada = SshAccess { user: "ada".to_owned(), ..running.ssh_access().clone() };
    assert_eq!(ada.run_checked("id -un", PATIENCE).unwrap(), "ada\n");
    turned_nobody_away(&running);
    assert_calm(&running);
    running
}

/// Whoever asks before there are keys is not let in, and punished for it: sshd must come after them, unless
/// the machine is so slow that it was no longer waited for. Neither does anybody wait for a name server.
fn turned_nobody_away(running: &RunningMachine) {
    let said = run(
        running,
        "sudo true 2>&1; sudo journalctl -b -u catamaran-logins.service -o cat
         sudo journalctl -b -u ssh.service -o cat | grep -E 'preauth|penalty' || echo nobody",
    );
    let punctual = said.contains("whoever may log in can\n") && said.ends_with("\nnobody\n");
    assert!(punctual || said.contains("the first boot takes its time"), "{said}");
    assert!(!said.contains("unable to resolve host"), "{said}");
}

/// What Vagrant's guest plugin for CoreOS asks, uploads and starts, in its order, as it does.
fn is_told_by_vagrant(running: &RunningMachine) {
    let found = run(
        running,
        "grep -E 'ID_LIKE=.*coreos.*' /etc/os-release && systemctl -q list-unit-files | grep 'system-cloudinit*' && command -v cloud-init
         sudo ip link add story0 type dummy
         sudo /sbin/ip -o -0 addr | grep -v LOOPBACK | awk '{print $2}' | sed 's/://'
         sudo cat /proc/net/dev | grep -E '^[a-z0-9 ]+:' | awk '{print $1}' | sed 's/://'",
    );
    assert_eq!(found.matches("story0\n").count(), 2, "{found}");
    for (name, document) in [("hostname", VAGRANT_HOSTNAME), ("networks", VAGRANT_NETWORKS)] {
        let start = format!(
            "cat >/var/tmp/{name}.yml && sudo systemctl start system-cloudinit@var-tmp-{name}.yml.service"
        );
        let output = running.ssh_access().run_with(&start, document.as_bytes(), PATIENCE).unwrap();
        assert_eq!(output.code, Some(0), "{name}: {output}");
    }
    let said = run(
        running,
        "until ip -4 addr show story0 | grep 172.17.8.101/24; do sleep 1; done
         hostname; . /etc/environment; echo $COREOS_PRIVATE_IPV4",
    );
    assert!(said.ends_with("\ncore-01.example.com\n172.17.8.101\n"), "{said}");
}

const VAGRANT_HOSTNAME: &str = "#cloud-config
---
hostname: core-01.example.com
";
const VAGRANT_NETWORKS: &str = "#cloud-config
---
write_files:
- path: /etc/environment
  content: |-
    COREOS_PUBLIC_IPV4=127.0.0.1
    COREOS_PRIVATE_IPV4=172.17.8.101
coreos:
  units:
  - name: 50-vagrant1.network
    runtime: 'no'
    content: |-
      [Match]
      Name=story0
      [Network]
      Address=172.17.8.101/24
";

fn runs_etcd(running: &RunningMachine) {
    let said = run(
        running,
        "for try in $(seq 60); do sudo etcdctl endpoint health >/dev/null 2>&1 && break; sleep 1; done
         sudo etcdctl put /story/end well && sudo etcdctl get --print-value-only /story/end
         sudo etcdctl member list
         etcdctl set /coreos.com/network/config ahoy && etcdctl get /coreos.com/network/config",
    );
    assert!(said.starts_with("OK\nwell\n"), "{said}");
    assert!(said.contains(", first, "), "the member's name is not that of the cloud-config: {said}");
    assert!(said.ends_with("ahoy\nahoy\n"), "{said}");
}

/// etcd answers root's certificate only, and fleet has one: after a restart, too, at which both see what they were
/// told the last time.
fn keeps_fleet_from_nobody(running: &RunningMachine) {
    let said = run(
        running,
        "sudo systemctl restart etcd.service && sudo systemctl restart fleet.service
         for try in $(seq 60); do sudo etcdctl endpoint health >/dev/null 2>&1 && break; sleep 1; done
         for at in http://127.0.0.1:2379 http://127.0.0.1:4001 https://127.0.0.1:2378 https://127.0.0.1:2380; do
             sudo -u nobody env ETCDCTL_API=3 /usr/libexec/etcdctl --endpoints $at --insecure-skip-tls-verify \
                 --dial-timeout 1s --command-timeout 2s put /_coreos.com/fleet/x y >/dev/null 2>&1 && echo $at is open
         done
         sudo -u nobody cat /run/catamaran/cluster/client.key /etc/catamaran/cluster.json 2>/dev/null
         for try in $(seq 60); do fleetctl list-machines --no-legend 2>/dev/null | grep -q . && break; sleep 1; done
         fleetctl list-machines --no-legend | wc -l
         sudo -u nobody fleetctl list-machines >/dev/null 2>&1 && echo fleet is open
         initagent cluster status | grep -c '^open' || true",
    );
    assert_eq!(said, "1\n0\n");
}

/// The programs are static, and the system's own name services are of another C library. Nobody is called `.invalid`
/// (RFC 6761), so files do not know the name, and all services are asked.
fn asks_for_a_name(running: &RunningMachine) {
    let said = run(
        running,
        "fleetctl --endpoint http://fleet.invalid:49153 list-machines 2>&1 >/dev/null; echo \"exit $?\"",
    );
    assert!(said.contains("fleet.invalid") && said.ends_with("exit 1\n"), "{said}");
}

fn runs_a_container(running: &RunningMachine) {
    let import = "docker import - story/busybox:1 >/dev/null &&
        docker run --rm --network none story/busybox:1 /bin/busybox echo from the container
        docker run --rm --network host story/busybox:1 /bin/busybox wget -q -O- --post-data '{\"peerURLs\":[\"http://x:1\"]}' \
            http://127.0.0.1:2379/v2/members 2>&1 | grep -c peerURLs || true";
    let output = running.ssh_access().run_with(import, &busybox_image(), PATIENCE).unwrap();
    assert_eq!(output.stdout, "from the container\n0\n", "{output}");
}

/// A container's root: one static program, in a tar archive.
fn busybox_image() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox")
        .unwrap_or_else(|error| panic!("/bin/busybox: {error}; install busybox-static"));
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    archive.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    archive.into_inner().unwrap()
}

fn is_secure(running: &RunningMachine) -> bool {
    run(running, "sudo dmesg | grep -i 'secure boot' || true").to_lowercase().contains("secure boot enabled")
}
