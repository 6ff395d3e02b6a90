//! This machine as detection sees it: firmware strings, kernel command line, disks.
//!
//! Knows the paths. Refuses to interpret what stands in them: that is each platform's own
//! business. Invariant: everything is looked up below one root, so that a test is a directory.
//!
//! Documentation: DMTF's DSP0134 (SMBIOS), the kernel's
//! `Documentation/ABI/testing/sysfs-firmware-dmi-tables`, and for the command line
//! `Documentation/admin-guide/kernel-parameters.rst`.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{
    cell::{OnceCell, RefCell},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Firmware strings and command lines are short; more than this is not one.
// A file of /sys is one page, and the command line of x86 has 2048 bytes.
const MAX_TEXT: u64 = 64 << 10;

/// Block devices that never carry a configuration.
// They lie on other devices, which are looked at themselves. To open an idle `nbd` or `loop` costs time for
// nothing.
const INTERNAL_DEVICES: [&str; 6] = ["dm-", "loop", "md", "nbd", "ram", "zram"];

/// Where to look; [`Host::this_machine`] for this machine, [`Host::at_directory`] for a twin in a directory.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    programs: ProgramUse,
    /// The kernel's command line never changes, but every platform asks for it.
    command_line: OnceCell<Vec<String>>,
    /// What was found of disks, until more of them may have come.
    block_devices: RefCell<Option<Vec<BlockDevice>>>,
}

/// Whether programs such as modprobe may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramUse {
    Leave,
    Run,
}

/// A disk or partition the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    pub(crate) path: PathBuf,
    /// The name in the partition table, such as `ESP`.
    pub(crate) partition_label: Option<String>,
    pub(crate) is_partition: bool,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn this_machine() -> Self {
        Self::new(PathBuf::from("/"), ProgramUse::Run)
    }

    /// A machine whose /sys, /proc, /dev and so on are directories below `root`.
    #[must_use]
    pub fn at_directory(root: &Path) -> Self {
        Self::new(root.to_owned(), ProgramUse::Leave)
    }

    fn new(root: PathBuf, programs: ProgramUse) -> Self {
        Self { root, programs, command_line: OnceCell::new(), block_devices: RefCell::default() }
    }

    /// Whether this is a machine and no directory.
    pub(crate) fn is_real(&self) -> bool {
        self.programs == ProgramUse::Run
    }

    /// The absolute `path` as it lies on this host.
    pub(crate) fn path_of(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn path_exists(&self, path: &str) -> bool {
        self.path_of(path).exists()
    }

    /// At most `limit` bytes of a file; `None` when there is no such file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match File::open(self.path_of(path)) {
            Ok(file) => read_all(file, limit).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file of known size, in reads as large as the kernel allows; what is larger than `limit`
    /// is refused.
    pub(crate) fn read_at_once(&self, path: &str, size: u64, limit: u64) -> io::Result<Vec<u8>> {
        if size > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {limit} bytes"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut file = File::open(self.path_of(path))?;
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read(&mut bytes[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// A short text file without surrounding white space; empty when it cannot be read.
    pub(crate) fn read_text(&self, path: &str) -> String {
        let bytes = self.read(path, MAX_TEXT).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// An SMBIOS string, such as `sys_vendor`.
    pub(crate) fn dmi_field(&self, field: &str) -> String {
        self.read_text(&format!("/sys/class/dmi/id/{field}"))
    }

    /// The words of the kernel command line, quotes removed.
    pub(crate) fn command_line(&self) -> &[String] {
        self.command_line.get_or_init(|| split_words(&self.read_text("/proc/cmdline")))
    }

    /// The last value given to `key=` on the kernel command line.
    pub(crate) fn kernel_parameter(&self, key: &str) -> Option<String> {
        let value_of = |word: &String| word.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        // The kernel's own parameters are read so: who appends a word to the line overrules what is there.
        self.command_line().iter().filter_map(value_of).next_back()
    }

    /// Disks and partitions that have a size, by name.
    pub(crate) fn block_devices(&self) -> Vec<BlockDevice> {
        self.block_devices.borrow_mut().get_or_insert_with(|| self.find_block_devices()).clone()
    }

    fn find_block_devices(&self) -> Vec<BlockDevice> {
        let Ok(entries) = self.path_of("/sys/class/block").read_dir() else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        // The kernel lists a folder in any order. Two boots must find the same volume first.
        names.sort();
        names.retain(|name| !INTERNAL_DEVICES.iter().any(|prefix| name.starts_with(prefix)));
        names.iter().filter_map(|name| self.block_device(name)).collect()
    }

    fn block_device(&self, name: &str) -> Option<BlockDevice> {
        let directory = format!("/sys/class/block/{name}");
        let sectors: u64 = self.read_text(&format!("{directory}/size")).parse().ok()?;
        let uevent = self.read_text(&format!("{directory}/uevent"));
        let property = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let node = property("DEVNAME=").unwrap_or_else(|| name.to_owned());
        (sectors > 0).then(|| BlockDevice {
            path: self.path_of(&format!("/dev/{node}")),
            partition_label: property("PARTNAME="),
            is_partition: property("DEVTYPE=").as_deref() == Some("partition")
                || self.path_exists(&format!("{directory}/partition")),
        })
    }

    /// What the firmware calls this machine: a copy of it has another name, and a volume cannot change it.
    #[must_use]
    pub fn machine_name(&self) -> Option<String> {
        let name = self.dmi_field("product_uuid").to_ascii_lowercase();
        // SMBIOS says so in its section on the UUID: all zeros mean that there is none, all ones that it is
        // not set.
        // What machines have to which nobody gave one.
        let is_blank = |blank: char| name.chars().all(|letter| letter == blank || letter == '-');
        (!is_blank('0') && !is_blank('f')).then_some(name)
    }

    /// Asks the kernel for a module; that it may not exist is for the caller to see.
    pub(crate) fn load_module(&self, name: &str) {
        if self.programs == ProgramUse::Run {
            drop(Command::new("modprobe").args(["--quiet", name]).stdin(Stdio::null()).status());
        }
    }

    /// A file of a disc in the UDF format, which is mounted read-only while it is read.
    pub(crate) fn read_from_udf(&self, device: &Path, path: &str, limit: u64) -> Option<Vec<u8>> {
        let mount_point = "/run/catamaran/udf";
        if self.programs == ProgramUse::Leave {
            return None;
        }
        fs::create_dir_all(mount_point).ok()?;
        // UDF has too many versions to be read here, as FAT and ISO 9660 are. Nothing on a disc may act: no
        // programs, devices.
        let arguments = ["-t", "udf", "-o", "ro,nosuid,nodev,noexec", device.to_str()?, mount_point];
        self.program_output("/usr/bin/mount", &arguments)?;
        let read = self.read(&format!("{mount_point}/{path}"), limit);
        self.program_output("/usr/bin/umount", &[mount_point]);
        read.ok().flatten()
    }

    /// Lets the kernel finish looking for devices, so that a disk is not overlooked because it is
    /// slow. Over at once when there is nothing left to look for; the drivers of a CD drive have taken
    /// 50 s on a machine that was busy with other things. The kernel begins when udev asks it to, which it
    /// does once networkd runs.
    pub fn settle_devices(&self) {
        self.program_output("/usr/bin/systemctl", &["start", "systemd-udev-trigger.service"]);
        // Ten seconds were tried. On a busy machine a CD drive came after 50, and the cloud was asked in its
        // place.
        self.program_output("/usr/bin/udevadm", &["settle", "--timeout=90"]);
        // It may be done before it has read what a driver that it had just loaded brought to light.
        self.program_output("/usr/bin/udevadm", &["settle", "--timeout=30"]);
        self.block_devices.take();
    }

    /// What a program of the image prints; `None` when it is missing or fails.
    pub(crate) fn program_output(&self, program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
        if self.programs == ProgramUse::Leave || !self.path_exists(program) {
            return None;
        }
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    }
}

/// Reads to the end, or fails when there is more than `limit`.
pub(crate) fn read_all(source: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    // With room for most of them, a short file is read by one question and seen to end by another.
    let mut bytes = Vec::with_capacity(4096);
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Splits as the kernel does: at white space outside double quotes. A backslash before `;` is what
/// boot loaders need to keep the `;`, so it goes too.
fn split_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            // GRUB ends a command at a bare `;`, so people write `ds=nocloud\;s=...`.
            '\\' if letters.peek() == Some(&';') => {}
            white if white.is_whitespace() && !quoted => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|word| word.push(other)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A machine that is a directory.
#[cfg(test)]
pub(crate) struct Twin {
    pub(crate) host: Host,
    directory: tempfile::TempDir,
}

/// A machine with these files, whose paths have no leading slash.
#[cfg(test)]
pub(crate) fn twin(files: &[(&str, &str)]) -> Twin {
    let directory = tempfile::tempdir().unwrap();
    let twin = Twin { host: Host::at_directory(directory.path()), directory };
    for (path, content) in files {
        twin.write(path, content.as_bytes());
    }
    twin
}

#[cfg(test)]
impl Twin {
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Leaves the record of a boot.
    pub(crate) fn runs_from(&self, disk: &str, esp: &str) {
        let record = serde_json::json!({"devices": {"disk": disk, "esp": esp}});
        self.write("run/catamaran/boot.json", record.to_string().as_bytes());
    }

    /// Attaches a disk that holds `image`.
    pub(crate) fn attach(&self, name: &str, image: &[u8], uevent: &str) {
        self.write(&format!("sys/class/block/{name}/size"), format!("{}\n", image.len() / 512).as_bytes());
        self.write(&format!("sys/class/block/{name}/uevent"), format!("DEVNAME={name}\n{uevent}").as_bytes());
        self.write(&format!("dev/{name}"), image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_on_the_command_line_keep_a_word_together() {
        let words = split_words("ro  a=b ds=\"nocloud;s=http://h/\" ds=nocloud\\;i=7 \"x=1 2\"\n");

        assert_eq!(words, ["ro", "a=b", "ds=nocloud;s=http://h/", "ds=nocloud;i=7", "x=1 2"]);
    }

    #[test]
    fn the_firmwares_name_of_a_machine_counts_if_somebody_gave_it_one() {
        let name = |uuid: &str| twin(&[("sys/class/dmi/id/product_uuid", uuid)]).host.machine_name();

        assert_eq!(name("4C4C4544-0001\n").as_deref(), Some("4c4c4544-0001"));
        for blank in ["", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"] {
            assert_eq!(name(blank), None, "{blank}");
        }
    }

    #[test]
    fn a_file_larger_than_its_limit_is_refused() {
        assert_eq!(read_all(&b"12345"[..], 5).unwrap(), b"12345");
        assert_eq!(read_all(&b"123456"[..], 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
