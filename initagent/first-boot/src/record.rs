//! What this machine remembers of its first boot.
//!
//! Knows the files below /var/lib/catamaran/first-boot. Refuses to be read by others: user-data may
//! hold secrets. Invariant: an instance counts as configured only once everything is on the disk, so
//! a power cut means that it is configured again.

use std::collections::HashSet;
use std::fs;

use platform::{Addresses, Payload, Provision};
use serde_json::{Value, json};

use crate::files::{self, Rights};
use crate::root::Root;
use crate::step_error::StepError;

/// Where it lies.
pub(crate) const FOLDER: &str = "/var/lib/catamaran/first-boot";
/// Read back at most so much.
const MOST: u64 = 64 << 20;

/// The instance that this disk was configured as.
pub(crate) fn instance(root: &Root) -> Option<String> {
    let text = fs::read_to_string(root.path(&format!("{FOLDER}/instance-id"))).ok()?;
    Some(text.trim_end().to_owned()).filter(|id| !id.is_empty())
}

/// Remembers that this instance is configured, after everything else has reached the disk.
pub(crate) fn settle(root: &Root, instance: &str) -> Result<(), StepError> {
    sync(root);
    write(root, "instance-id", format!("{instance}\n").as_bytes())
}

/// Brings everything that was written onto the disk: of this machine's own file systems only, since the
/// others of a container's host may be busy with what others write.
pub(crate) fn sync(root: &Root) {
    if !root.is_running() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for place in written_places(&mounts) {
        // What can't be opened was not written to, and nobody would hear of more.
        let _ = fs::File::open(place).map(|folder| nix::unistd::syncfs(&folder));
    }
}

/// Where the file systems are mounted that keep what is written, each of them once.
fn written_places(mounts: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let place = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let (mount, kind): (Vec<&str>, Vec<&str>) = (mount.split(' ').collect(), kind.split(' ').collect());
        let [_, _, device, _, place, options, ..] = mount[..] else { return None };
        let [name, source, ..] = kind[..] else { return None };
        let is_kept =
            (source.starts_with('/') || name == "overlay") && !options.split(',').any(|one| one == "ro");
        // Names with blanks are written with octal digits; other mounts of the same are as good.
        (is_kept && !place.contains('\\') && seen.insert(device.to_owned())).then(|| place.to_owned())
    };
    mounts.lines().filter_map(place).collect()
}

/// Remembers what the platform said, for a boot at which it says nothing.
pub(crate) fn keep(root: &Root, provision: &Provision) -> Result<(), StepError> {
    let bytes = |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.as_bytes().to_vec());
    for (name, payload) in [
        ("user-data", &provision.user_data),
        ("vendor-data", &provision.vendor_data),
        ("network-config", &provision.network_config),
    ] {
        match bytes(payload) {
            Some(bytes) => write(root, name, &bytes)?,
            // What is not there need not be removed.
            None => drop(fs::remove_file(root.path(&format!("{FOLDER}/{name}")))),
        }
    }
    let addresses = &provision.addresses;
    let facts = json!({
        "instance_id": provision.instance_id,
        "hostname": provision.hostname,
        "ssh_keys": provision.ssh_keys,
        "public_ipv4": addresses.public_ipv4,
        "private_ipv4": addresses.private_ipv4,
        "public_ipv6": addresses.public_ipv6,
        "private_ipv6": addresses.private_ipv6,
    });
    write(root, "facts.json", facts.to_string().as_bytes())
}

/// What the platform said last time.
pub(crate) fn kept(root: &Root) -> Option<Provision> {
    let facts: Value = serde_json::from_slice(&read(root, "facts.json")?).ok()?;
    let text = |name: &str| facts.get(name)?.as_str().map(str::to_owned);
    let keys = facts.get("ssh_keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let payload = |name: &str| read(root, name).and_then(Payload::from_bytes);
    Some(Provision {
        instance_id: text("instance_id"),
        hostname: text("hostname"),
        ssh_keys: keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect(),
        user_data: payload("user-data"),
        vendor_data: payload("vendor-data"),
        network_config: payload("network-config"),
        addresses: Addresses {
            public_ipv4: text("public_ipv4").and_then(|text| text.parse().ok()),
            private_ipv4: text("private_ipv4").and_then(|text| text.parse().ok()),
            public_ipv6: text("public_ipv6").and_then(|text| text.parse().ok()),
            private_ipv6: text("private_ipv6").and_then(|text| text.parse().ok()),
        },
        ..Provision::default()
    })
}

fn read(root: &Root, name: &str) -> Option<Vec<u8>> {
    let path = root.path(&format!("{FOLDER}/{name}"));
    fs::metadata(&path).ok().filter(|meta| meta.len() <= MOST)?;
    fs::read(path).ok()
}

/// Writes one of the files; nobody else may look into the folder.
pub(crate) fn write(root: &Root, name: &str, content: &[u8]) -> Result<(), StepError> {
    prepare(root)?;
    files::write_durably(&root.path(FOLDER).join(name), content, Rights::PRIVATE).map(drop)
}

/// Makes the folder, closed to everybody else.
pub(crate) fn prepare(root: &Root) -> Result<(), StepError> {
    let folder = root.path(FOLDER);
    files::make_parents(&folder, Rights::PRIVATE)?;
    let private = Rights { mode: 0o700, ..Rights::PRIVATE };
    for folder in [folder.parent().unwrap_or(&folder), &folder] {
        files::make_directory(folder, private)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_what_is_written_is_synced() {
        let mounts = "22 1 254:3 / / ro,relatime - ext4 /dev/mapper/root ro
23 22 254:6 / /var rw,relatime shared:1 - ext4 /dev/vda6 rw
24 22 0:20 / /etc rw - overlay overlay rw,lowerdir=/etc
25 22 254:6 /home /home rw - ext4 /dev/vda6 rw
26 22 0:5 / /proc rw - proc proc rw
27 22 0:40 / /srv/nfs rw - nfs4 server:/share rw
28 22 254:17 / /srv/data rw - ext4 /dev/vdb1 rw
29 26 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
";

        assert_eq!(written_places(mounts), ["/var", "/etc", "/srv/data"]);
    }

    #[test]
    fn what_the_platform_said_is_kept_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let provision = Provision {
            instance_id: Some("i-1".to_owned()),
            ssh_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            user_data: Payload::from_bytes(b"\x00\xff".to_vec()),
            addresses: Addresses { public_ipv4: "192.0.2.1".parse().ok(), ..Addresses::default() },
            ..Provision::default()
        };

        keep(&root, &provision).unwrap();

        assert_eq!(kept(&root), Some(provision));
    }
}
