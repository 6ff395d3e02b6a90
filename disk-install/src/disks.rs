//! The disks of this machine, as the kernel and udev describe them.
//!
//! Knows sysfs (Documentation/ABI/stable/sysfs-block), /proc/self/mountinfo and udev's database. Loop devices and
//! volumes over other disks are found only by their path: nobody means them by an expression.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskFacts {
    /// Its node.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// Bytes of a logical sector.
    pub sector: u64,
    /// What its maker calls it.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its world-wide name.
    pub wwn: String,
    /// The bus that it is on.
    pub transport: String,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Where it or a partition of it is mounted.
    pub mounts: Vec<String>,
    /// Volumes over it, and swap.
    pub users: Vec<String>,
}

const VIRTUAL: [&str; 8] = ["dm-", "fd", "loop", "md", "nbd", "ram", "sr", "zram"];

/// All disks that an expression can mean, by path.
pub fn list_disks() -> io::Result<Vec<DiskFacts>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !VIRTUAL.iter().any(|prefix| name.starts_with(prefix)) {
            disks.push(disk_facts(&name));
        }
    }
    disks.retain(|disk| disk.bytes > 0);
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(disks)
}

/// The disk with that path; also a file, which stands for one.
pub fn disk_at(path: &Path) -> io::Result<DiskFacts> {
    use std::os::unix::fs::FileTypeExt as _;
    let path = fs::canonicalize(path)?;
    let found = fs::metadata(&path)?;
    if !found.file_type().is_block_device() {
        if !found.is_file() {
            return Err(io::Error::other("it is neither a disk nor a file"));
        }
        return Ok(DiskFacts {
            path,
            bytes: found.len(),
            sector: 512,
            transport: "file".to_owned(),
            ..DiskFacts::default()
        });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !Path::new("/sys/block").join(&name).exists() {
        return Err(io::Error::other("it is a part of a disk: name the whole disk"));
    }
    Ok(DiskFacts { path, ..disk_facts(&name) })
}

fn disk_facts(name: &str) -> DiskFacts {
    let folder = Path::new("/sys/block").join(name);
    let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    let number = |file: &str| text(file).parse::<u64>().unwrap_or_default();
    let udev = fs::read_to_string(format!("/run/udev/data/b{}", text("dev"))).unwrap_or_default();
    let property = |key: &str| {
        let line =
            udev.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    let first =
        |candidates: [String; 3]| candidates.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let parts = list_partitions(&folder);
    DiskFacts {
        path: Path::new("/dev").join(name),
        // The kernel counts in 512 bytes, whatever the disk's sectors are.
        bytes: number("size").saturating_mul(512),
        sector: number("queue/logical_block_size"),
        model: first([text("device/model"), property("ID_MODEL"), String::new()]),
        serial: first([text("serial"), text("device/serial"), property("ID_SERIAL_SHORT")]),
        wwn: first([text("wwid"), text("device/wwid"), property("ID_WWN")]),
        transport: disk_transport(name, &folder),
        read_only: text("ro") == "1",
        mounts: list_mounts(&parts),
        users: list_users(&folder, name, &parts),
    }
}

/// The bus, by where the kernel hangs the disk.
fn disk_transport(name: &str, folder: &Path) -> String {
    let place = fs::canonicalize(folder).unwrap_or_default().to_string_lossy().into_owned();
    let known = [("/usb", "usb"), ("/nvme", "nvme"), ("/virtio", "virtio"), ("/mmc", "sd"), ("/ata", "sata")];
    let found = known.iter().find(|(part, _)| place.contains(part)).map(|(_, bus)| *bus);
    found.unwrap_or_else(|| if name.starts_with("loop") { "loop" } else { "scsi" }).to_owned()
}

/// The disk and its partitions: name, and major and minor number.
fn list_partitions(folder: &Path) -> Vec<(String, String)> {
    let dev = |folder: &Path| fs::read_to_string(folder.join("dev")).unwrap_or_default().trim().to_owned();
    let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts = vec![(name(folder), dev(folder))];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.join("partition").exists() {
            parts.push((name(&path), dev(&path)));
        }
    }
    parts
}

fn list_mounts(parts: &[(String, String)]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let (dev, place) = (words.next()?, words.nth(1)?);
        parts.iter().any(|(_, found)| found == dev).then(|| place.to_owned())
    };
    table.lines().filter_map(mounted).collect()
}

fn list_users(folder: &Path, name: &str, parts: &[(String, String)]) -> Vec<String> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut users = Vec::new();
    for (part, _) in parts {
        let folder = if part == name { folder.to_owned() } else { folder.join(part) };
        for holder in fs::read_dir(folder.join("holders")).into_iter().flatten().flatten() {
            users.push(holder.file_name().to_string_lossy().into_owned());
        }
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{part}"))) {
            users.push("swap".to_owned());
        }
    }
    users
}
