//! Leaves word for the rest of the boot, moves to the new root, and starts systemd there.
//!
//! Knows what is left in /run and how a root is switched. Refuses to come back: after the switch
//! there is nothing left of the initramfs. Invariant: only the initramfs itself is deleted, never
//! anything mounted.
//!
//! Documentation: `switch_root(8)`, mount(2) for `MS_MOVE`, issue(5), motd(5).
#![expect(clippy::disallowed_methods, reason = "becomes systemd; effects live here")]

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::mounts::{self, MountError};
use crate::boot_record::{self, BootRecord};
use crate::state::{self, StateCondition, StateRecord};

const SYSTEMD: &str = "/sbin/init";
const KERNEL_FILE_SYSTEMS: [&str; 4] = ["dev", "proc", "run", "sys"];
/// What an initramfs is made of.
// ramfs and tmpfs, linux/magic.h. On anything else somebody's files would be deleted.
const IN_MEMORY: [FsType; 2] = [FsType(0x8584_58f6), TMPFS_MAGIC];
/// Where getty and sshd look for words of greeting.
const BANNERS: [&str; 2] = ["/run/issue.d/50-catamaran.issue", "/run/motd.d/50-catamaran"];

/// Why the machine is still in the initramfs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    #[error("cannot enter {root}")]
    Enter { root: PathBuf, source: io::Error },
    #[error("cannot start {SYSTEMD}")]
    Exec { source: io::Error },
    #[error("cannot write {path}")]
    Leave { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Leaves what was found out about this boot, and what a person who logs in must know.
pub(super) fn leave_records(record: &BootRecord, state: &StateRecord) -> Result<(), HandoverError> {
    // Strings, paths and flags only: there is nothing that JSON could not hold.
    let text = serde_json::to_string_pretty(record).unwrap_or_default();
    write(Path::new(boot_record::PATH), &format!("{text}\n"))?;
    let text = serde_json::to_string_pretty(state).unwrap_or_default();
    write(Path::new(state::RECORD), &format!("{text}\n"))?;
    if state.condition == StateCondition::Volatile {
        write(Path::new(state::VOLATILE_MARK), "")?;
    }
    let banner = development_banner(record) + &state.greeting().unwrap_or_default();
    if banner.is_empty() {
        // A soft-reboot keeps /run, with what was true of the root before.
        for path in BANNERS {
            let _ = fs::remove_file(path);
        }
        return Ok(());
    }
    BANNERS.iter().try_for_each(|path| write(Path::new(path), &banner))
}

fn development_banner(record: &BootRecord) -> String {
    let BootRecord { name, version, .. } = record;
    let development = record.development.then(|| {
        format!(
            "DEVELOPMENT BUILD: {name} {version} was signed with a development key, which its builder made\n\
             and keeps in a cache. Who reads that cache can sign for this machine.\n\
             Build with --key for machines that matter.\n\n"
        )
    });
    let old = record.below.as_ref().map(|newer| {
        format!(
            "OLD RELEASE: {name} {version} runs, since no other slot can, although this machine has\n\
             proven {newer} already. Holes that were mended since are open.\n\n"
        )
    });
    [development, old].into_iter().flatten().collect()
}

/// Writes a file of /run, and its folder.
pub(super) fn write(path: &Path, text: &str) -> Result<(), HandoverError> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder.and_then(|()| fs::write(path, text));
    written.map_err(|source| HandoverError::Leave { path: path.to_owned(), source })
}

/// Makes `new_root` the root.
pub(super) fn switch_root(new_root: &Path) -> Result<(), HandoverError> {
    for name in KERNEL_FILE_SYSTEMS {
        mounts::move_mount(&Path::new("/").join(name), &new_root.join(name))?;
    }
    delete_initramfs(new_root);
    let entered = |source| HandoverError::Enter { root: new_root.to_owned(), source };
    std::env::set_current_dir(new_root).map_err(entered)?;
    // The kernel's document on initramfs: pivot_root(2) cannot take the first root away, so the new one is
    // moved over it.
    mounts::move_mount(Path::new("."), Path::new("/"))?;
    std::os::unix::fs::chroot(".").map_err(entered)?;
    std::env::set_current_dir("/").map_err(entered)
}

/// Becomes systemd.
pub(super) fn start_systemd() -> Result<Infallible, HandoverError> {
    Err(HandoverError::Exec { source: Command::new(SYSTEMD).exec() })
}

/// Gives the memory of the initramfs back. What is mounted has another device number and stays;
/// what cannot be deleted costs a little memory, which is no reason to stop.
fn delete_initramfs(new_root: &Path) {
    let Ok(own) = fs::metadata("/").map(|root| root.dev()) else { return };
    let in_memory = statfs("/").is_ok_and(|root| IN_MEMORY.contains(&root.filesystem_type()));
    if !in_memory {
        return;
    }
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let path = entry.path();
        let is_own = path.symlink_metadata().is_ok_and(|metadata| metadata.dev() == own);
        if is_own && path != new_root {
            let folder = path.is_dir() && !path.is_symlink();
            drop(if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
        }
    }
}

/// Restarts the machine at once. Everything that matters was written synchronously.
pub(super) fn restart_machine() -> ! {
    nix::unistd::sync();
    loop {
        // It returns only if it is not allowed to, which PID 1 always is.
        let Err(_not_allowed) = reboot(RebootMode::RB_AUTOBOOT);
    }
}

#[cfg(test)]
mod tests {
    use image_format::digest::Sha256;
    use image_format::slot::Slot;
    use image_format::version::Version;

    use super::*;
    use crate::boot_record::BootDevices;

    #[test]
    fn a_login_says_what_the_machine_runs_against_its_will() {
        let path = PathBuf::new;
        let devices = BootDevices {
            disk: path(),
            esp: path(),
            abstate: path(),
            root: path(),
            other_root: path(),
            state: path(),
            verity: path(),
        };
        let record = BootRecord {
            slot: Slot::A,
            name: "cloud".into(),
            version: Version::new(1, 0, 0),
            channel: "stable".into(),
            root_hash: Sha256::digest_of(b""),
            development: false,
            built: 1,
            security_epoch: 0,
            below: None,
            devices,
        };
        assert_eq!(development_banner(&record), "");

        let old = development_banner(&BootRecord { below: Some(Version::new(1, 1, 0)), ..record.clone() });
        assert!(old.starts_with("OLD RELEASE: cloud 1.0.0 runs") && old.contains("proven 1.1.0"), "{old}");

        let development = development_banner(&BootRecord { development: true, ..record });
        assert!(development.contains("keeps in a cache"), "{development}");
    }
}
