//! Makes the SSH host keys that are missing or broken, before sshd starts.
//!
//! Knows which kinds there are and what a usable key file looks like. Refuses to know sshd's
//! settings. Invariants: a key file is whole or not there, whenever the power goes; a disk that became full
//! later still has room for keys.
//!
//! Documentation: ssh-keygen(1), sshd(8).
#![expect(clippy::disallowed_methods, reason = "runs ssh-keygen; effects live here")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Where sshd looks for its keys.
pub(crate) const FOLDER: &str = "/etc/ssh";

/// Ed25519 for everyone, ECDSA for old clients. RSA takes seconds to make and is not needed.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];
/// Where keys are made before they are moved into place, in the same file system.
const WORKSHOP: &str = ".catamaran-new-host-keys";
/// Takes the room that keys need, so that it is there when the disk is full.
// User-data that removed the keys and filled the disk once cost a machine its SSH access at the next boot.
const RESERVE: &str = ".catamaran-reserve";
// Two pairs, their folder and ext4's own blocks take some 30 KiB.
const RESERVE_BYTES: usize = 128 << 10;

/// Why the host keys could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeHostKeysError {
    #[error("ssh-keygen ended with {status} while making the {kind} host key: {said}")]
    Failed { kind: &'static str, status: ExitStatus, said: String },
    #[error("cannot run ssh-keygen for the {kind} host key")]
    Run { kind: &'static str, source: io::Error },
    #[error("cannot put {path} in its place")]
    Store { path: PathBuf, source: io::Error },
}

/// Makes what is missing, and says what that was.
pub(crate) fn make_host_keys(folder: &Path) -> Result<String, MakeHostKeysError> {
    let missing: Vec<&'static str> = KINDS.into_iter().filter(|kind| !is_usable(folder, kind)).collect();
    if !missing.is_empty() {
        // If it was not there, the disk may have room all the same.
        let _ = fs::remove_file(folder.join(RESERVE));
    }
    for kind in &missing {
        make_key(folder, kind)?;
    }
    // A disk without room for it now is no reason to go without keys.
    let _ = keep_reserve(&folder.join(RESERVE));
    Ok(match missing[..] {
        [] => "all host keys are there".to_owned(),
        _ => format!("made the host keys {}", missing.join(", ")),
    })
}

/// Whether both halves of a key are there and begin as such files do.
fn is_usable(folder: &Path, kind: &str) -> bool {
    // Looked at and not parsed: a power cut leaves empty or short files, and sshd itself judges the rest.
    let begins = |path: PathBuf, with: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.starts_with(with) && text.ends_with('\n'))
    };
    let secret = private_path(folder, kind);
    let public_kind = if kind == "ecdsa" { "ecdsa-sha2-" } else { "ssh-" };
    begins(public_path(&secret), public_kind) && begins(secret, "-----BEGIN OPENSSH PRIVATE KEY-----\n")
}

fn make_key(folder: &Path, kind: &'static str) -> Result<(), MakeHostKeysError> {
    let workshop = folder.join(WORKSHOP);
    let stored = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| MakeHostKeysError::Store { path: path.to_owned(), source })
    };
    // What a power cut left. ssh-keygen would ask whether to overwrite it.
    if workshop.exists() {
        stored(&workshop, fs::remove_dir_all(&workshop))?;
    }
    stored(&workshop, fs::create_dir(&workshop))?;
    let made = private_path(&workshop, kind);
    run_keygen(&made, kind)?;
    let place = private_path(folder, kind);
    // The public half last: a key without it counts as missing.
    for (from, to) in [(made.clone(), place.clone()), (public_path(&made), public_path(&place))] {
        let moved = File::open(&from).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&from, &to));
        stored(&to, moved)?;
    }
    stored(&workshop, fs::remove_dir_all(&workshop))?;
    stored(folder, File::open(folder).and_then(|folder| folder.sync_all()))
}

fn keep_reserve(reserve: &Path) -> io::Result<()> {
    if reserve.exists() {
        return Ok(());
    }
    // Written and not only sized: a hole takes no room.
    fs::write(reserve, vec![0; RESERVE_BYTES])?;
    File::open(reserve)?.sync_all()
}

fn run_keygen(path: &Path, kind: &'static str) -> Result<(), MakeHostKeysError> {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "", "-t", kind, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| MakeHostKeysError::Run { kind, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MakeHostKeysError::Failed { kind, status: output.status, said })
}

fn private_path(folder: &Path, kind: &str) -> PathBuf {
    folder.join(format!("ssh_host_{kind}_key"))
}

fn public_path(private: &Path) -> PathBuf {
    private.with_extension("pub")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn has_keygen() -> bool {
        let found = Command::new("ssh-keygen").arg("-?").output().is_ok();
        let ci = std::env::var("CI").as_deref() == Ok("true");
        assert!(found || !ci, "ssh-keygen (Debian package openssh-client) is not installed");
        if !found {
            eprintln!("skipped: ssh-keygen (Debian package openssh-client) is not installed");
        }
        found
    }

    #[test]
    fn missing_keys_are_made_once_and_only_root_reads_the_secrets() {
        if !has_keygen() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();

        assert_eq!(make_host_keys(folder.path()).unwrap(), "made the host keys ed25519, ecdsa");

        let secret = folder.path().join("ssh_host_ed25519_key");
        let before = fs::read(&secret).unwrap();
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(make_host_keys(folder.path()).unwrap(), "all host keys are there");
        assert_eq!(fs::read(&secret).unwrap(), before);
        assert!(!folder.path().join(WORKSHOP).exists());
    }

    /// A file system in memory, of so many bytes, in a mount name space of this test's own.
    fn on_a_small_disk(test: &str, bytes: usize) {
        let inside = std::env::current_exe().unwrap();
        let script = format!(
            "folder=$(mktemp -d) && mount -t tmpfs -o size={bytes} none $folder && \
             SMALL_DISK=$folder exec \"$0\" --exact host_keys::tests::{test} --ignored"
        );
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "--", "sh", "-c", &script]).arg(inside);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let ci = std::env::var("CI").as_deref() == Ok("true");
        if said.contains("running 1 test") || ci {
            assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        } else {
            eprintln!("skipped, because no mount name space can be made");
        }
    }

    #[test]
    fn a_full_disk_still_has_room_for_keys() {
        if has_keygen() {
            on_a_small_disk("keys_are_made_on_a_full_disk", 512 << 10);
        }
    }

    #[test]
    #[ignore = "only on a small disk; the test above runs it there"]
    fn keys_are_made_on_a_full_disk() {
        let folder = PathBuf::from(std::env::var_os("SMALL_DISK").unwrap());
        make_host_keys(&folder).unwrap();
        fs::remove_file(folder.join("ssh_host_ed25519_key")).unwrap();
        let mut filler = File::create(folder.join("filler")).unwrap();
        while io::Write::write(&mut filler, &[1; 4096]).is_ok_and(|written| written > 0) {}

        assert_eq!(make_host_keys(&folder).unwrap(), "made the host keys ed25519");
    }

    #[test]
    fn a_key_that_a_power_cut_left_empty_is_made_anew() {
        if !has_keygen() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        make_host_keys(folder.path()).unwrap();
        fs::write(folder.path().join("ssh_host_ecdsa_key"), "").unwrap();
        fs::create_dir(folder.path().join(WORKSHOP)).unwrap();

        assert_eq!(make_host_keys(folder.path()).unwrap(), "made the host keys ecdsa");
    }
}
