//! What this machine remembers of its first boot.
//!
//! Knows the files below /var/lib/catamaran/first-boot. Refuses to be read by others: user-data may
//! hold secrets. Invariant: an instance counts as configured only once everything is on the disk, so
//! a power cut means that it is configured again.
//!
//! Documentation: `proc_pid_mountinfo(5)`, syncfs(2).

use std::collections::HashSet;
use std::fs;

use platform::{InstanceMetadata, MachineAddresses, Payload, Platform};
use serde_json::{Value, json};

use crate::files::{self, FileRights};
use crate::root::MachineRoot;
use crate::source::Remembered;
use crate::step_error::StepError;

/// Where it lies.
// In /var, which outlasts boots and updates, as file-hierarchy(7) has it.
pub(crate) const FOLDER: &str = "/var/lib/catamaran/first-boot";
/// The file by which an instance counts as configured.
const INSTANCE: &str = "instance-id";
/// The file of what configured it.
const SOURCE: &str = "source.json";
/// Read back at most so much.
const MOST: u64 = 64 << 20;

/// The instance that this disk was configured as.
pub(crate) fn configured_instance(root: &MachineRoot) -> Option<String> {
    let text = fs::read_to_string(root.path_of(&format!("{FOLDER}/{INSTANCE}"))).ok()?;
    Some(text.trim_end().to_owned()).filter(|id| !id.is_empty())
}

/// Remembers that this instance is configured, after everything else has reached the disk.
///
/// The file gets its name only then. A disk that many write to takes its time for each such wish, so there
/// are two: one for all that was written, one for the name.
// Nine flushes were tried. Each costs milliseconds on a disk that is idle and much more on one that others
// write to.
pub(crate) fn mark_configured(root: &MachineRoot, instance: &str) -> Result<(), StepError> {
    prepare_folder(root)?;
    let path = root.path_of(&format!("{FOLDER}/{INSTANCE}"));
    let staged = files::stage_file(&path, format!("{instance}\n").as_bytes(), FileRights::PRIVATE)?;
    // sync(2) was used before. In a container it waits for all of the host's disks.
    sync_file_systems(root);
    staged.persist_file()
}

/// What configured this disk, once something has.
pub(crate) fn source(root: &MachineRoot) -> Option<Remembered> {
    // Without an instance it is the beginning of a run that was cut.
    configured_instance(root)?;
    Remembered::from_json(&serde_json::from_slice(&read(root, SOURCE)?).ok()?)
}

/// Remembers what configures this disk; it holds once the instance is remembered, too.
pub(crate) fn remember_source(root: &MachineRoot, source: &Remembered) -> Result<(), StepError> {
    write(root, SOURCE, source.to_json().to_string().as_bytes())
}

/// Brings everything that was written onto the disk: of this machine's own file systems only, since the
/// others of a container's host may be busy with what others write.
pub(crate) fn sync_file_systems(root: &MachineRoot) {
    if !root.is_running() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for place in written_places(&mounts) {
        // What cannot be opened was not written to, and nobody would hear of more.
        let _ = fs::File::open(place).map(|folder| nix::unistd::syncfs(&folder));
    }
}

/// Where the file systems are mounted that keep what is written, each of them once. The overlays of our
/// image keep it in the file system of /var; where that is none of its own, they count themselves.
fn written_places(mounts: &str) -> Vec<String> {
    let mounts: Vec<MountLine<'_>> = mounts.lines().filter_map(MountLine::read).collect();
    let has_var = mounts.iter().any(|mount| mount.place == "/var" && mount.is_on_device());
    let is_kept = |mount: &&MountLine<'_>| mount.is_on_device() || (mount.kind == "overlay" && !has_var);
    let mut seen = HashSet::new();
    let kept = mounts.iter().filter(|mount| mount.is_writable).filter(is_kept);
    kept.filter(|mount| seen.insert(mount.device)).map(|mount| mount.place.to_owned()).collect()
}

/// A line of mountinfo.
struct MountLine<'a> {
    device: &'a str,
    place: &'a str,
    kind: &'a str,
    source: &'a str,
    is_writable: bool,
}

impl<'a> MountLine<'a> {
    /// Names with blanks are written with octal digits, and left out: other mounts of the same are as good.
    fn read(line: &'a str) -> Option<Self> {
        let (mount, rest) = line.split_once(" - ")?;
        let (mount, rest): (Vec<&str>, Vec<&str>) = (mount.split(' ').collect(), rest.split(' ').collect());
        let [_, _, device, _, place, options, ..] = mount[..] else { return None };
        let [kind, source, ..] = rest[..] else { return None };
        let is_writable = !options.split(',').any(|one| one == "ro");
        (!place.contains('\\')).then_some(Self { device, place, kind, source, is_writable })
    }

    fn is_on_device(&self) -> bool {
        self.source.starts_with('/')
    }
}

/// Remembers what the platform said, for a boot at which it says nothing.
pub(crate) fn store_metadata(root: &MachineRoot, provision: &InstanceMetadata) -> Result<(), StepError> {
    let bytes = |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.as_bytes().to_vec());
    for (name, payload) in [
        ("user-data", &provision.user_data),
        ("vendor-data", &provision.vendor_data),
        ("files", &provision.files),
        ("network-config", &provision.network_config),
    ] {
        match bytes(payload) {
            Some(bytes) => write(root, name, &bytes)?,
            // What is not there need not be removed.
            None => drop(fs::remove_file(root.path_of(&format!("{FOLDER}/{name}")))),
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
        "platform": provision.platform.name(),
        "region": provision.region,
        "zone": provision.zone,
        "instance_type": provision.instance_type,
        "attributes": provision.attributes,
    });
    write(root, "facts.json", facts.to_string().as_bytes())
}

/// What the platform said last time.
pub(crate) fn load_metadata(root: &MachineRoot) -> Option<InstanceMetadata> {
    let facts: Value = serde_json::from_slice(&read(root, "facts.json")?).ok()?;
    let text = |name: &str| facts.get(name)?.as_str().map(str::to_owned);
    let keys = facts.get("ssh_keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let payload = |name: &str| read(root, name).and_then(Payload::from_bytes);
    Some(InstanceMetadata {
        instance_id: text("instance_id"),
        hostname: text("hostname"),
        ssh_keys: keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect(),
        user_data: payload("user-data"),
        vendor_data: payload("vendor-data"),
        files: payload("files"),
        network_config: payload("network-config"),
        addresses: MachineAddresses {
            public_ipv4: text("public_ipv4").and_then(|text| text.parse().ok()),
            private_ipv4: text("private_ipv4").and_then(|text| text.parse().ok()),
            public_ipv6: text("public_ipv6").and_then(|text| text.parse().ok()),
            private_ipv6: text("private_ipv6").and_then(|text| text.parse().ok()),
        },
        platform: text("platform").and_then(|name| Platform::from_report_name(&name)).unwrap_or_default(),
        region: text("region"),
        zone: text("zone"),
        instance_type: text("instance_type"),
        attributes: facts
            .get("attributes")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        ..InstanceMetadata::default()
    })
}

/// Reads one of the files.
pub(crate) fn read(root: &MachineRoot, name: &str) -> Option<Vec<u8>> {
    let path = root.path_of(&format!("{FOLDER}/{name}"));
    fs::metadata(&path).ok().filter(|meta| meta.len() <= MOST)?;
    fs::read(path).ok()
}

/// Writes one of the files; nobody else may look into the folder. It is on the disk when [`mark_configured`] or the
/// kernel has brought it there: without it, a machine that is configured lacks nothing.
pub(crate) fn write(root: &MachineRoot, name: &str, content: &[u8]) -> Result<(), StepError> {
    prepare_folder(root)?;
    files::write(&root.path_of(FOLDER).join(name), content, FileRights::PRIVATE).map(drop)
}

/// Makes the folder, closed to everybody else.
pub(crate) fn prepare_folder(root: &MachineRoot) -> Result<(), StepError> {
    let folder = root.path_of(FOLDER);
    files::make_parents(&folder, FileRights::PRIVATE)?;
    let private = FileRights { mode: 0o700, ..FileRights::PRIVATE };
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

        assert_eq!(written_places(mounts), ["/var", "/srv/data"]);
        assert_eq!(written_places("70 68 0:42 / / rw - overlay overlay rw,upperdir=/u\n"), ["/"]);
    }

    #[test]
    fn what_the_platform_said_is_kept_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let provision = InstanceMetadata {
            instance_id: Some("i-1".to_owned()),
            ssh_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            user_data: Payload::from_bytes(b"\x00\xff".to_vec()),
            files: Payload::from_bytes(b"#cloud-config\n".to_vec()),
            addresses: MachineAddresses {
                public_ipv4: "192.0.2.1".parse().ok(),
                ..MachineAddresses::default()
            },
            platform: Platform::Ec2,
            region: Some("eu-central-1".to_owned()),
            zone: Some("eu-central-1a".to_owned()),
            instance_type: Some("m5.large".to_owned()),
            attributes: [("AWS_IPV4_LOCAL".to_owned(), "10.0.0.1".to_owned())].into(),
            ..InstanceMetadata::default()
        };

        store_metadata(&root, &provision).unwrap();

        assert_eq!(load_metadata(&root), Some(provision));
    }
}
