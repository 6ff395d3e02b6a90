//! Lets a new release bring a program's data into a new form, on a copy, so that the old release finds its own again.
//!
//! A hook is a folder below `HOOKS` with a file `folder`, which names the data, and a program `run`, which is given
//! a copy of it. When all hooks of a release have ended well, data and copies change places (`RENAME_EXCHANGE` of
//! rename(2)); what was there before stays beside until the release has proven itself. Knows no format of any data.
//! Refuses to touch data in place. Invariant: at every moment, whatever cut comes, the folder is whole, and is either
//! what it was or what every hook left; and the old slot finds what it was.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use first_boot::{ProgramCall, ProgramRunner};
use image_format::digest::Sha256;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::kept_trust::read_bounded;
use crate::durable_file::replace_with_json;
use error_text::error_chain;

/// Where the running release has its hooks.
pub(crate) const HOOKS: &str = "usr/lib/catamaran/migrate.d";
/// What was begun here.
const RECORDS: &str = "var/lib/catamaran/update/migrations.json";
const MAX_RECORDS: usize = 256 << 10;
const MAX_LINE: usize = 4096;
/// Where a machine keeps data. Exchanged folders must be on one file system, and these are on STATE.
const PLACES: [&str; 4] = ["home", "opt", "srv", "var"];
/// What a folder beside the data is called. Not hidden: a person who looks for lost room should see it.
const SUFFIX: &str = ".catamaran-migration";
/// How long a copy or a hook may take; the deadline of the trial ends both.
const PATIENCE: Duration = Duration::from_mins(30);

/// A hook of the running release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hook {
    name: String,
    data: PathBuf,
    run: PathBuf,
}

/// One folder that is, or was, brought into another form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MigrationRecord {
    /// The hook.
    name: String,
    /// The folder, as the hook names it.
    data: PathBuf,
    /// The inode of what was there before. By it, and not by a note that a cut could leave behind, one sees whether the
    /// exchange has happened.
    old: u64,
    /// The release for which it is done.
    release: Sha256,
    /// Whether every hook has ended well, so that the exchange may happen.
    is_ready: bool,
}

/// Where the old data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OldData {
    /// Beside: the exchange has happened.
    Beside,
    /// In its place.
    InPlace,
    /// In neither: somebody else has moved it.
    Lost,
}

/// Why data was not brought into its new form, or back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error("cannot copy {data}")]
    Copy { data: PathBuf, source: first_boot::RunError },
    #[error("cannot exchange {data} and the folder beside it")]
    Exchange { data: PathBuf, source: io::Error },
    #[error("{data}, which the hook {name} names, is no folder of its own below /home, /opt, /srv or /var")]
    Folder { name: String, data: PathBuf },
    #[error("the hook {name} failed: {said}")]
    Hook { name: String, said: String },
    #[error(
        "neither {data} nor the folder beside it is what was there before the migration; see to it by hand"
    )]
    Moved { data: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("/{RECORDS} is not the JSON it should be")]
    Records { source: serde_json::Error },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot keep what was done in /{RECORDS}")]
    Write { source: io::Error },
}

/// Lets a test end everything between two steps, as a power cut does.
pub(crate) trait StepGate {
    /// The next step that changes the disk may be done.
    fn pass(&self) -> io::Result<()>;
}

/// A machine whose power stays on.
#[derive(Debug)]
pub(crate) struct NoCut;

impl StepGate for NoCut {
    fn pass(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The migrations of a machine.
pub(crate) struct Migrations<'a> {
    pub(crate) root: &'a Path,
    pub(crate) programs: &'a dyn ProgramRunner,
    pub(crate) gate: &'a dyn StepGate,
}

impl Migrations<'_> {
    /// Brings all data of the release on trial into its form, or none of it. Says what was done.
    pub(crate) fn migrate(&self, release: Sha256) -> Result<Vec<String>, MigrateError> {
        // What another release left undone is not this one's to build on.
        self.restore(release)?;
        let mut records = self.read_records()?;
        if !records.iter().any(|record| record.is_ready) {
            records = self.prepare_copies(release)?;
            for record in &mut records {
                record.is_ready = true;
            }
            // From here on a cut leads on, and before it, back to the beginning.
            self.write_records(&records)?;
        }
        for record in &records {
            self.exchange_unless(record, OldData::Beside)?;
        }
        Ok(records.into_iter().map(|record| format!("{}: {}", record.name, record.data.display())).collect())
    }

    /// The release has proven itself: what was there before goes.
    pub(crate) fn keep(&self, release: Sha256) -> Result<(), MigrateError> {
        self.end_records(|record| record.release == release, |_| Ok(()))
    }

    /// Another release than those runs: what was there before comes back.
    pub(crate) fn restore(&self, running: Sha256) -> Result<(), MigrateError> {
        let back = |record: &MigrationRecord| self.exchange_unless(record, OldData::InPlace);
        self.end_records(|record| record.release != running, back)
    }

    /// Ends records after a last step for each, the folder beside it first: without its record nobody would remove it.
    fn end_records(
        &self,
        is_over: impl Fn(&MigrationRecord) -> bool,
        last_step: impl Fn(&MigrationRecord) -> Result<(), MigrateError>,
    ) -> Result<(), MigrateError> {
        let mut records = self.read_records()?;
        while let Some(at) = records.iter().position(&is_over) {
            last_step(&records[at])?;
            self.remove_beside(&self.place(&records[at].data))?;
            records.remove(at);
            self.write_records(&records)?;
        }
        Ok(())
    }

    /// Copies all data and runs all hooks on the copies.
    fn prepare_copies(&self, release: Sha256) -> Result<Vec<MigrationRecord>, MigrateError> {
        let hooks = read_hooks(&self.root.join(HOOKS))?;
        let mut records = Vec::new();
        for hook in &hooks {
            // A program that has no data yet makes it in its new form.
            let Some(old) = self.find_data(hook)? else { continue };
            let Hook { name, data, .. } = hook.clone();
            records.push(MigrationRecord { name, data, old, release, is_ready: false });
        }
        // Before the copies: what a cut leaves of them is removed by its record.
        self.write_records(&records)?;
        for record in &records {
            let hook = hooks.iter().find(|hook| hook.name == record.name);
            hook.map_or(Ok(()), |hook| self.prepare_copy(hook))?;
        }
        Ok(records)
    }

    fn prepare_copy(&self, hook: &Hook) -> Result<(), MigrateError> {
        let data = self.place(&hook.data);
        let copy = beside(&data);
        self.remove_beside(&data)?;
        self.gate.pass().map_err(|source| MigrateError::Read { path: data.clone(), source })?;
        let words = [text_of(&data), text_of(&copy)];
        // Where the file system can share blocks, the copy costs no room.
        let options = ["--archive", "--reflink=auto", "--no-target-directory"].map(ToOwned::to_owned);
        let call = ProgramCall::new("cp", options.into_iter().chain(words)).with_timeout(PATIENCE);
        self.programs
            .run_program(&call)
            .map_err(|source| MigrateError::Copy { data: data.clone(), source })?;
        let failed = |said| MigrateError::Hook { name: hook.name.clone(), said };
        self.gate.pass().map_err(|error| failed(error.to_string()))?;
        // What a hook prints is why it failed, on whichever stream.
        let line = "exec \"$0\" \"$1\" 1>&2".to_owned();
        let words = ["-c".to_owned(), line, text_of(&hook.run), text_of(&copy)];
        let call = ProgramCall::new("sh", words).with_timeout(PATIENCE);
        self.programs.run_program(&call).map_err(|error| failed(error_chain(&error)))?;
        sync_file_system(&copy).map_err(|source| MigrateError::Read { path: copy, source })
    }

    /// The inode of a hook's data, if there is any.
    fn find_data(&self, hook: &Hook) -> Result<Option<u64>, MigrateError> {
        let refused = || MigrateError::Folder { name: hook.name.clone(), data: hook.data.clone() };
        let mut parts = hook.data.components();
        let is_absolute = parts.next() == Some(Component::RootDir);
        let parts: Vec<Component<'_>> = parts.collect();
        let is_plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
        let place = parts.first().and_then(|part| part.as_os_str().to_str());
        // The places themselves are mounts, and what is no folder of its own cannot be exchanged.
        if !(is_absolute && is_plain && parts.len() > 1 && place.is_some_and(|name| PLACES.contains(&name))) {
            return Err(refused());
        }
        let path = self.place(&hook.data);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| MigrateError::Read { path: path.clone(), source })?,
        };
        let parent = path.parent().map(fs::metadata).and_then(Result::ok);
        let is_mount = parent.is_none_or(|parent| parent.dev() != metadata.dev());
        if metadata.is_dir() && !is_mount { Ok(Some(metadata.ino())) } else { Err(refused()) }
    }

    /// Exchanges a folder and the one beside it, unless the old data is there already.
    fn exchange_unless(&self, record: &MigrationRecord, there: OldData) -> Result<(), MigrateError> {
        let data = self.place(&record.data);
        let found = find_old(&data, record.old);
        // A copy that was not ready has never been in the place of the data.
        if found == there || (found == OldData::InPlace && !record.is_ready) {
            return Ok(());
        }
        if found == OldData::Lost {
            return Err(MigrateError::Moved { data });
        }
        let failed = |source| MigrateError::Exchange { data: data.clone(), source };
        self.gate.pass().map_err(failed)?;
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &data, AT_FDCWD, &beside(&data), flags).map_err(|error| failed(error.into()))?;
        // Both names are in one folder, which must say so on the disk before a service opens what it names.
        data.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()).map_err(failed)
    }

    fn remove_beside(&self, data: &Path) -> Result<(), MigrateError> {
        let path = beside(data);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        let removed = self.gate.pass().and_then(|()| fs::remove_dir_all(&path));
        removed.map_err(|source| MigrateError::Remove { path, source })
    }

    fn read_records(&self) -> Result<Vec<MigrationRecord>, MigrateError> {
        let path = self.root.join(RECORDS);
        match read_bounded(&path, MAX_RECORDS) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| MigrateError::Records { source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(MigrateError::Read { path, source }),
        }
    }

    /// No record is no file, by which systemd knows that there is nothing to do.
    fn write_records(&self, records: &Vec<MigrationRecord>) -> Result<(), MigrateError> {
        let path = self.root.join(RECORDS);
        let written = self.gate.pass().and_then(|()| match records.as_slice() {
            [] => remove_durably(&path),
            _ => replace_with_json(&path, records),
        });
        written.map_err(|source| MigrateError::Write { source })
    }

    fn place(&self, data: &Path) -> PathBuf {
        self.root.join(data.strip_prefix("/").unwrap_or(data))
    }
}

fn find_old(data: &Path, old: u64) -> OldData {
    let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.ino());
    if inode(data) == Some(old) {
        OldData::InPlace
    } else if inode(&beside(data)) == Some(old) {
        OldData::Beside
    } else {
        OldData::Lost
    }
}

fn beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    data.with_file_name(name)
}

/// The hooks of a release, by name.
fn read_hooks(folder: &Path) -> Result<Vec<Hook>, MigrateError> {
    let mut hooks = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(hooks),
        other => other.map_err(|source| MigrateError::Read { path: folder.to_owned(), source })?,
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let named = path.join("folder");
        let text =
            read_bounded(&named, MAX_LINE).map_err(|source| MigrateError::Read { path: named, source })?;
        let data = PathBuf::from(String::from_utf8_lossy(&text).trim());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        hooks.push(Hook { name, data, run: path.join("run") });
    }
    hooks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(hooks)
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(&File::open(path)?)?)
}

fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
    }
}

#[cfg(test)]
mod tests;
