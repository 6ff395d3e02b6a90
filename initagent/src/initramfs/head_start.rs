//! Does with a system call each what units would do on every boot by starting two programs each.
//!
//! Knows a few mounts, the device nodes that load their drivers, the module that systemd looks for first, how
//! the journal learns that it can be kept, and what runs beside systemd. Refuses to insist: what does not work
//! here is left to the unit, and so is every mount that the machine's owner changed. Invariant: systemd finds
//! what it would have made itself.
//!
//! Documentation: systemd's units of these names, modules.devname in depmod(8), and mount(2).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::utsname::uname;

use super::console;
use super::mounts::MountPoint;
use error_text::error_chain;

/// This program, in the root.
const INITAGENT: &str = "/usr/bin/initagent";

const JOURNAL: &str = "/run/systemd/journal";
/// By this journald knows that /var is there to write to (systemd-journald.service(8), `--flush`).
const FLUSHED: &str = "/run/systemd/journal/flushed";

/// A mount of systemd.
struct StandardMount {
    unit: &'static str,
    at: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const STRICT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// `MODULE_INIT_COMPRESSED_FILE` of `finit_module`(2).
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// As the units of systemd 257 mount them. /tmp is the new root's; the others are in what moves there.
// systemd leaves alone what is mounted already, and each of these units would run two programs.
const COMMON: [StandardMount; 8] = [
    StandardMount {
        unit: "dev-hugepages.mount",
        at: "/dev/hugepages",
        kind: "hugetlbfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        options: "",
    },
    StandardMount { unit: "dev-mqueue.mount", at: "/dev/mqueue", kind: "mqueue", flags: STRICT, options: "" },
    StandardMount {
        unit: "sys-kernel-debug.mount",
        at: "/sys/kernel/debug",
        kind: "debugfs",
        flags: STRICT,
        options: "",
    },
    StandardMount {
        unit: "sys-kernel-tracing.mount",
        at: "/sys/kernel/tracing",
        kind: "tracefs",
        flags: STRICT,
        options: "",
    },
    StandardMount {
        unit: "sys-fs-fuse-connections.mount",
        at: "/sys/fs/fuse/connections",
        kind: "fusectl",
        flags: STRICT,
        options: "",
    },
    StandardMount {
        unit: "sys-kernel-config.mount",
        at: "/sys/kernel/config",
        kind: "configfs",
        flags: STRICT,
        options: "",
    },
    StandardMount {
        unit: "run-lock.mount",
        at: "/run/lock",
        kind: "tmpfs",
        flags: STRICT,
        options: "mode=1777,size=5242880",
    },
    StandardMount {
        unit: "tmp.mount",
        at: "/tmp",
        kind: "tmpfs",
        flags: MsFlags::MS_STRICTATIME.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV),
        options: "mode=1777,size=50%,nr_inodes=1m",
    },
];

/// Makes the mounts and the nodes, loads the module and leaves word to journald, as far as it goes.
pub(super) fn prepare_for_systemd(new_root: &Path) {
    let etc = new_root.join("etc");
    let wanted = |common: &&StandardMount| !is_changed(&etc, common) && is_known(common);
    for common in COMMON.iter().filter(wanted) {
        let at = if common.unit == "tmp.mount" { new_root.join("tmp") } else { PathBuf::from(common.at) };
        let StandardMount { kind, flags, options, .. } = *common;
        if let Err(error) = (MountPoint { what: kind, at: &at, kind, flags, options }).mount_point() {
            console::write_kernel_log(&format!("{} is left to its unit: {}", common.at, error_chain(&error)));
        }
    }
    // Else journald begins in memory and a program tells it to move to /var later.
    if let Err(error) = fs::create_dir_all(JOURNAL).and_then(|()| File::create(FLUSHED)) {
        console::write_kernel_log(&format!("the journal begins in memory: {error}"));
    }
    let Ok(kernel) = uname() else { return };
    let modules = new_root.join("usr/lib/modules").join(kernel.release());
    // systemd inserts it in any case, by way of libraries that take half a second to load in an emulator.
    if let Err(error) = insert_compressed(&modules.join("kernel/fs/autofs/autofs4.ko.xz")) {
        console::write_kernel_log(&format!("the module autofs4 is left to systemd: {error}"));
    }
    let nodes = fs::read_to_string(modules.join("modules.devname")).unwrap_or_default();
    for node in nodes.lines().filter_map(StaticNode::parse_line) {
        if let Err(error) = node.make_node(Path::new("/dev")) {
            console::write_kernel_log(&format!("there is no node /dev/{}: {error}", node.name));
        }
    }
}

/// Starts what brings up network cards, since systemd begins with one processor of many.
pub(super) fn bring_up_network_cards() {
    let mut child = Command::new(INITAGENT);
    child
        .arg("network-cards")
        .stdin(Stdio::null())
        .stdout(console::kernel_log_stdio())
        .stderr(console::kernel_log_stdio());
    // It outlives this program; systemd, which this process becomes, reaps it.
    if let Err(error) = child.spawn() {
        console::write_kernel_log(&format!(
            "network cards are left to udev: cannot start {INITAGENT}: {error}"
        ));
    }
}

/// Whether the owner of the machine has a say in this mount, by a unit, a part of one, or a line of fstab.
fn is_changed(etc: &Path, common: &StandardMount) -> bool {
    let units = etc.join("systemd/system");
    let own_unit = [common.unit.to_owned(), format!("{}.d", common.unit)]
        .iter()
        .any(|name| units.join(name).symlink_metadata().is_ok());
    let fstab = fs::read_to_string(etc.join("fstab")).unwrap_or_default();
    // systemd-fstab-generator(8) makes a unit of each line, which goes before systemd's own.
    own_unit || fstab.lines().any(|line| line.split_whitespace().nth(1) == Some(common.at))
}

/// Whether the kernel can mount it: in /sys it has a place for each of its file systems.
fn is_known(common: &StandardMount) -> bool {
    !common.at.starts_with("/sys/") || Path::new(common.at).exists()
}

/// Lets the kernel unpack a module, which needs no library.
fn insert_compressed(path: &Path) -> io::Result<()> {
    Ok(finit_module(&File::open(path)?, c"", COMPRESSED)?)
}

/// A node of /dev that is there before its driver: opening it loads the driver.
#[derive(Debug, PartialEq, Eq)]
struct StaticNode<'a> {
    name: &'a str,
    kind: SFlag,
    major: u64,
    minor: u64,
}

impl<'a> StaticNode<'a> {
    /// Reads a line of modules.devname, `module name type major:minor` with the type c or b (depmod(8)).
    fn parse_line(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (_module, name, number) = (words.next()?, words.next()?, words.next()?);
        let (kind, number) = match number.split_at_checked(1)? {
            ("c", number) => (SFlag::S_IFCHR, number),
            ("b", number) => (SFlag::S_IFBLK, number),
            _ => return None,
        };
        let (major, minor) = number.split_once(':')?;
        let inside = !name.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        let node = Self { name, kind, major: major.parse().ok()?, minor: minor.parse().ok()? };
        inside.then_some(node)
    }

    /// Makes it for root alone; udev gives it the owner and the mode that its rules say.
    fn make_node(&self, dev: &Path) -> io::Result<()> {
        let path = dev.join(self.name);
        if path.exists() {
            return Ok(());
        }
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(mknod(&path, self.kind, mode, makedev(self.major, self.minor))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_what_depmod_wrote() {
        let node = StaticNode { name: "net/tun", kind: SFlag::S_IFCHR, major: 10, minor: 200 };
        assert_eq!(StaticNode::parse_line("tun net/tun c10:200"), Some(node));
        for line in
            ["# Device nodes to trigger on-demand module loading.", "", "a ../x c1:2", "a x d1:2", "a x c1"]
        {
            assert_eq!(StaticNode::parse_line(line), None, "{line}");
        }
    }

    #[test]
    fn a_mount_that_the_owner_changed_is_left_to_systemd() {
        let etc = tempfile::tempdir().unwrap();
        let changed = || -> Vec<&str> {
            COMMON.iter().filter(|common| is_changed(etc.path(), common)).map(|common| common.at).collect()
        };
        assert!(changed().is_empty());

        fs::create_dir_all(etc.path().join("systemd/system/run-lock.mount.d")).unwrap();
        std::os::unix::fs::symlink("/dev/null", etc.path().join("systemd/system/tmp.mount")).unwrap();
        fs::write(etc.path().join("fstab"), "# own\nnone /dev/mqueue mqueue defaults\n").unwrap();

        assert_eq!(changed(), ["/dev/mqueue", "/run/lock", "/tmp"]);
    }
}
