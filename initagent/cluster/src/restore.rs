//! Brings a cluster back from what is left of it: a member's own disk, or a backup.
//!
//! Knows the two ways. Where a quorum lives, the keys of a backup are written to it ([`import_keys`]); where none
//! does, this machine becomes the only member of a new cluster with the old content ([`rebuild_member`]), and the
//! others come to it as new ones. Refuses to stop or start units. Invariants: what is on the disk is moved aside and
//! never changed; the rebuilt member has run on the new data before these take the old ones' place.
//!
//! The rebuilt cluster has another number, so that no member of the old one that comes back later can speak to it:
//! etcd's `--force-new-cluster` alone keeps the number, and two of three that were thought lost would outvote it.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod import;
pub mod plan;
mod scratch;

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use nix::unistd::User;
use serde_json::json;

use crate::backup::classic::{EntryOutcome, write_entry};
use crate::backup::{Backup, BackupError, MODERN_FILE, kept_entries, take_backup};
use crate::etcd_client::{CallError, EtcdClient, decode_number, encode_bytes};
pub use import::{ImportReport, import_keys};
pub use scratch::ScratchError;
use scratch::{ScratchMember, ScratchStart};

/// etcd's documentation of disasters has this number: clients that watch see that they must read everything anew,
/// instead of waiting for a revision that the new cluster reaches in years.
const REVISION_LEAP: &str = "1000000000";

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RestoreError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("etcd does not take the restored keys")]
    Call(#[from] CallError),
    #[error("cannot copy {from} to {to}")]
    Copy { from: PathBuf, to: PathBuf, source: io::Error },
    #[error("cannot put the restored data to {path}; what was there is kept beside it")]
    Move { path: PathBuf, source: io::Error },
    #[error("{program} does not restore {snapshot}: {said}")]
    Refused { program: &'static str, snapshot: PathBuf, said: String },
    #[error("cannot run etcd on the restored data")]
    Scratch(#[from] ScratchError),
}

/// What the restored member is.
#[derive(Debug, Clone)]
pub struct RestoredMember {
    /// Its name.
    pub name: String,
    /// Its URL for other members.
    pub peer_url: String,
    /// The name of the new cluster in etcd, which no earlier one had.
    pub token: String,
    /// Where its data go.
    pub data_folder: PathBuf,
    /// Where its certificates are.
    pub keys: PathBuf,
}

/// From what.
#[derive(Debug, Clone, Copy)]
pub enum RestoreSource<'a> {
    /// A backup.
    Backup(&'a Backup),
    /// The data of this machine's member.
    OwnData,
}

/// Whether the disk is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreRun {
    /// Everything but the last step is done, and undone.
    Dry,
    /// For good.
    Real,
}

/// What is in the rebuilt member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// Keys of version 3.
    pub modern_keys: u64,
    /// Keys and folders of version 2.
    pub classic_keys: usize,
    /// The revision of the old store.
    pub revision: u64,
    /// Where the old data are; `None` if there were none, or in a dry run.
    pub old_data: Option<PathBuf>,
}

/// Makes this machine the only member of a new cluster. Its etcd must not run.
pub fn rebuild_member(
    client: &EtcdClient,
    member: &RestoredMember,
    source: RestoreSource<'_>,
    run: RestoreRun,
) -> Result<RebuildReport, RestoreError> {
    let work = WorkFolder::create(&member.data_folder)?;
    let own;
    let backup = match source {
        RestoreSource::Backup(backup) => backup,
        RestoreSource::OwnData => {
            own = copy_own_data(client, member, &work.path)?;
            &own
        }
    };
    let new = work.path.join("new");
    restore_snapshot(&backup.folder.join(MODERN_FILE), member, &new)?;
    let entries = kept_entries(backup)?;
    let scratch = ScratchMember::start(client, &new, &member.keys, ScratchStart::AsWritten)?;
    for entry in &entries {
        write_entry(client, &scratch.endpoint, entry)?;
    }
    let modern_keys = count_keys(client, &scratch.endpoint)?;
    drop(scratch);
    let mut report = RebuildReport {
        modern_keys,
        classic_keys: entries.len(),
        revision: backup.manifest.revision,
        old_data: None,
    };
    if run == RestoreRun::Real {
        report.old_data = put_in_place(&new, &member.data_folder)?;
    }
    Ok(report)
}

/// Both stores of the member whose data are on this disk, from a copy of it that believes to be alone.
fn copy_own_data(client: &EtcdClient, member: &RestoredMember, work: &Path) -> Result<Backup, RestoreError> {
    let copy = work.join("copy");
    copy_folder(&member.data_folder, &copy)?;
    let scratch = ScratchMember::start(client, &copy, &member.keys, ScratchStart::AsOnlyMember)?;
    let backup = take_backup(client, &scratch.endpoint, &work.join("backup"), Timestamp::now())?;
    Ok(backup)
}

/// How many keys of version 3 a member has.
fn count_keys(client: &EtcdClient, endpoint: &str) -> Result<u64, CallError> {
    let all = encode_bytes(b"\0");
    let answer =
        client.call(endpoint, "kv/range", &json!({ "key": all, "range_end": all, "count_only": true }))?;
    Ok(decode_number(&answer["count"]))
}

/// Makes a data folder of a snapshot. etcd 3.4 has no `etcdutl`, and its etcdctl cannot leap.
fn restore_snapshot(snapshot: &Path, member: &RestoredMember, to: &Path) -> Result<(), RestoreError> {
    let arguments = |program: &'static str| {
        let mut command = Command::new(program);
        command.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(to);
        command.args(["--name", &member.name, "--initial-advertise-peer-urls", &member.peer_url]);
        command.args(["--initial-cluster", &format!("{}={}", member.name, member.peer_url)]);
        command.args(["--initial-cluster-token", &member.token]);
        command
    };
    let mut program = "etcdutl";
    let mut output = arguments(program).args(["--bump-revision", REVISION_LEAP, "--mark-compacted"]).output();
    if output.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        program = "etcdctl";
        output = arguments(program).env("ETCDCTL_API", "3").output();
    }
    let output = output.map_err(|source| ScratchError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or("nothing").chars().take(400).collect();
    Err(RestoreError::Refused { program, snapshot: snapshot.to_owned(), said })
}

/// Lets the new data take the place of the old ones, which are kept until the next time.
fn put_in_place(new: &Path, place: &Path) -> Result<Option<PathBuf>, RestoreError> {
    let failed = |source| RestoreError::Move { path: place.to_owned(), source };
    if let Some(etcd) = etcd_user() {
        own_by(new, &etcd).map_err(failed)?;
    }
    let old = place.with_extension("before-restore");
    let had_data = place.exists();
    if had_data {
        remove_if_there(&old).map_err(failed)?;
        fs::rename(place, &old).map_err(failed)?;
    }
    fs::rename(new, place).map_err(failed)?;
    let parent = place.parent().unwrap_or(place);
    fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(had_data.then_some(old))
}

/// A folder beside the data, so that what is made there can be renamed into its place; gone when dropped.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn create(data_folder: &Path) -> Result<Self, RestoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = data_folder.with_extension("restore");
        // What an earlier attempt left when the power failed.
        let created = remove_if_there(&path)
            .and_then(|()| fs::DirBuilder::new().recursive(true).mode(0o700).create(&path));
        match created {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(RestoreError::Move { path, source }),
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // The next attempt removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Copy { from: from.to_owned(), to: to.to_owned(), source };
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

/// On a system without that user, etcd runs as this program does.
fn etcd_user() -> Option<User> {
    nix::unistd::geteuid().is_root().then(|| User::from_name("etcd").ok().flatten()).flatten()
}

fn own_by(path: &Path, user: &User) -> io::Result<()> {
    lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            own_by(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// How many entries were written.
fn count_written(outcomes: &[EntryOutcome]) -> usize {
    outcomes.iter().filter(|outcome| **outcome == EntryOutcome::Written).count()
}
