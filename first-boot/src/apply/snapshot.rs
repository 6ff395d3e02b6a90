//! The files of sshd as they were before this run wrote them.
//!
//! Knows how to note one and to put it back. Refuses to judge: [`super::guard`] decides what is put back.

use std::path::PathBuf;

use super::ApplyContext;
use super::key_files::MAX_KEYS;
use crate::files;
use crate::folder::Held;
use crate::step_error::StepError;

/// A file as it was before this run wrote it.
#[derive(Debug, Clone)]
pub(crate) struct FileSnapshot {
    pub(super) path: PathBuf,
    held: Known,
}

/// What was at a path.
#[derive(Debug, Clone)]
enum Known {
    File(Held),
    Nothing,
    /// A link or whatever else a user put there: it is not read, so it cannot be put back.
    Unread,
}

impl FileSnapshot {
    pub(super) fn take_snapshot(path: PathBuf) -> Self {
        let held = match files::read(&path, 0, MAX_KEYS) {
            Ok(Some(held)) => Known::File(held),
            Ok(None) => Known::Nothing,
            // To put back what a link leads to would be to write wherever the link's owner wants.
            Err(_) => Known::Unread,
        };
        Self { path, held }
    }

    /// What the file held, where it was one.
    pub(super) fn known_content(&self) -> Option<&[u8]> {
        match &self.held {
            Known::File(held) => Some(&held.content),
            Known::Nothing | Known::Unread => None,
        }
    }

    pub(super) fn restore_file(&self) -> Result<(), StepError> {
        match &self.held {
            Known::File(held) => files::write_durably(&self.path, &held.content, held.rights).map(drop),
            Known::Nothing => files::remove_path(&self.path),
            Known::Unread => Ok(()),
        }
    }
}

/// Notes what a file of sshd holds before it is written.
pub(crate) fn snapshot_file(path: &str, host: &ApplyContext<'_>) {
    let path = host.root.path_of(path);
    let mut before = host.before.borrow_mut();
    // The first time counts: a second write in this run would note what the first one wrote.
    if !before.iter().any(|known| known.path == path) {
        before.push(FileSnapshot::take_snapshot(path));
    }
}
