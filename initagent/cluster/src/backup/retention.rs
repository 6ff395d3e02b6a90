//! Which backups there are, and which are too old.
//!
//! Knows their names. Refuses to look into them. Invariant: what has another name is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;

use super::{BackupError, write_error};

/// The backups below a folder, oldest first.
pub fn list_backups(parent: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let failed = |source| BackupError::List { path: parent.to_owned(), source };
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut backups = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(is_backup_name) {
            backups.push(entry.path());
        }
    }
    // Their names are their times, in one zone.
    backups.sort_unstable();
    Ok(backups)
}

/// Removes the oldest ones beyond `kept`, and what a power cut left of others.
pub fn remove_oldest(parent: &Path, kept: usize) -> Result<Vec<PathBuf>, BackupError> {
    let backups = list_backups(parent)?;
    let surplus = backups.len().saturating_sub(kept);
    let old: Vec<PathBuf> = backups.into_iter().take(surplus).collect();
    for path in &old {
        // First without its name, so that half a backup never has one.
        let doomed = path.with_extension("new");
        let removed = fs::rename(path, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
        removed.map_err(|source| write_error(path, source))?;
    }
    Ok(old)
}

/// Whether a name is such as `20261128T041500Z`.
fn is_backup_name(name: &str) -> bool {
    name.strip_suffix('Z').is_some_and(|time| DateTime::strptime("%Y%m%dT%H%M%S", time).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_what_is_no_backup_stays() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["20261128T041500Z", "20261126T041500Z", "20261127T041500Z", "before-the-move", "20261125"]
        {
            fs::create_dir(folder.path().join(name)).unwrap();
        }

        let removed = remove_oldest(folder.path(), 2).unwrap();

        assert_eq!(removed, [folder.path().join("20261126T041500Z")]);
        let left = |name: &str| folder.path().join(name).exists();
        assert!(left("before-the-move") && left("20261125") && left("20261128T041500Z"));
        assert_eq!(list_backups(folder.path()).unwrap().len(), 2);
        assert_eq!(list_backups(&folder.path().join("none")).unwrap(), Vec::<PathBuf>::new());
    }
}
