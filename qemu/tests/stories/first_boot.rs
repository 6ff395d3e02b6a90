//! From the untouched image to a machine that is as its cloud-config says, by each firmware.

use vm::Running;
use vm::firmware::Firmware;
use vm::ssh::Ssh;

use crate::scene::{PATIENCE, Scene, assert_calm, run, throw_away, wait_until_up};

pub(crate) fn bios(scene: &Scene) {
    configures_the_machine(scene, Firmware::Bios);
}

pub(crate) fn uefi(scene: &Scene) {
    configures_the_machine(scene, Firmware::Uefi);
}

pub(crate) fn secure(scene: &Scene) {
    configures_the_machine(scene, Firmware::Secure);
}

/// The way the users of the first hour write it.
const USER_DATA: &str = "#cloud-config
hostname: first
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
      chapter one
coreos:
  etcd2:
    name: first
    listen-client-urls: http://127.0.0.1:2379
    advertise-client-urls: http://127.0.0.1:2379
  units:
    - name: etcd2.service
      command: start
    - name: docker.service
      command: start
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

fn configures_the_machine(scene: &Scene, firmware: Firmware) {
    let user_data = USER_DATA.replace("KEY", scene.public_key());
    let name = format!("first-{firmware:?}").to_lowercase();
    let machine = scene.fresh(&name).firmware(firmware).user_data(user_data).build().unwrap();
    let mut running = machine.start().unwrap();
    wait_until_up(&mut running);

    has_name_user_file_and_unit(&running);
    runs_etcd(&running);
    runs_a_container(&running);
    assert_eq!(is_secure(&running), firmware == Firmware::Secure);
    assert_calm(&running);

    throw_away(running);
}

fn has_name_user_file_and_unit(running: &Running) {
    let said = run(
        running,
        "hostname; id -nG ada; stat -c '%a %U %G' /etc/story.conf; sudo cat /etc/story.conf; cat /run/hello
         systemctl is-active hello.service",
    );
    let mut lines = said.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "first");
    assert!(next().split(' ').any(|group| group == "sudo"), "{said}");
    assert_eq!(next(), "640 root docker");
    assert_eq!(next(), "chapter one");
    assert_eq!(next(), "hello");
    assert_eq!(next(), "active");
    let ada = Ssh { user: "ada".to_owned(), ..running.ssh().clone() };
    assert_eq!(ada.must("id -un", PATIENCE).unwrap(), "ada\n");
}

fn runs_etcd(running: &Running) {
    let said = run(
        running,
        "export ETCDCTL_API=3
         for try in $(seq 60); do etcdctl endpoint health >/dev/null 2>&1 && break; sleep 1; done
         etcdctl put /story/end well && etcdctl get --print-value-only /story/end
         etcdctl member list",
    );
    assert!(said.starts_with("OK\nwell\n"), "{said}");
    assert!(said.contains(", first, "), "the member's name is not that of the cloud-config: {said}");
}

fn runs_a_container(running: &Running) {
    let import = "docker import - story/busybox:1 >/dev/null &&
        docker run --rm --network none story/busybox:1 /bin/busybox echo from the container";
    let output = running.ssh().run_with(import, &busybox_image(), PATIENCE).unwrap();
    assert_eq!(output.stdout, "from the container\n", "{output}");
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

fn is_secure(running: &Running) -> bool {
    run(running, "sudo dmesg | grep -i 'secure boot' || true").to_lowercase().contains("secure boot enabled")
}
