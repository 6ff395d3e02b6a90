//! Replaces a file whole or not at all, so that a power cut leaves the one before.
//!
//! Knows the order in which Linux keeps that promise: content, name, folder (rename(2), fsync(2)). Refuses to know
//! what stands in the file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde::Serialize;

/// Root's own files.
pub(crate) const PRIVATE: u32 = 0o600;

/// Puts `bytes` in the place of what was at `path`, with this mode, on the disk before it returns. Folders that are
/// missing are made for root alone.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
    // One that a power cut left may have another mode, and the umask has no say.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    // The new name, too, must survive a power cut.
    File::open(folder)?.sync_all()
}

/// The same for a value, as JSON that a person can read, for root alone.
pub(crate) fn replace_with_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = format!("{:#}\n", serde_json::to_value(value)?);
    replace_durably(path, text.as_bytes(), PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_is_replaced_and_the_mode_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/note.json");
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(path.with_extension("new"), "half of something long").unwrap();

        replace_durably(&path, b"whole", 0o444).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        assert!(!path.with_extension("new").exists());
    }
}
