//! Home directories: made with what a new one begins with.
//!
//! Knows /etc/skel. Refuses to touch a home that is there. Invariant: everything in a new home is its
//! owner's.
//!
//! Documentation: useradd(8), `--skel`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::accounts::{LoginDefaults, PasswdEntry};
use crate::files::{self, FileChange, FileRights};
use crate::root::MachineRoot;
use crate::step_error::StepError;

const SKELETON: &str = "/etc/skel";
/// Deeper than any skeleton.
const DEEPEST: u32 = 16;

/// Makes a user's home, unless it is there.
pub(crate) fn make_home(root: &MachineRoot, login: &PasswdEntry) -> Result<FileChange, StepError> {
    let home = root.path_of(&login.home);
    if home.exists() {
        return Ok(FileChange::None);
    }
    // Root's: whoever owns the directory above could put another home in this one's place.
    files::make_parents(&home, FileRights { mode: 0o755, ..FileRights::PUBLIC })?;
    let mode = LoginDefaults::of_machine(root).home_mode;
    files::make_directory(&home, FileRights { uid: login.uid, gid: login.gid, mode })?;
    copy_skeleton(&root.path_of(SKELETON), &home, login, DEEPEST);
    Ok(FileChange::Made)
}

/// The files a new home begins with. They are a comfort: what cannot be copied is left out.
fn copy_skeleton(from: &Path, to: &Path, login: &PasswdEntry, deepest: u32) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let (place, Ok(meta)) = (to.join(entry.file_name()), entry.metadata()) else { continue };
        let rights = FileRights { uid: login.uid, gid: login.gid, mode: meta.mode() & 0o777 };
        if meta.is_dir() && deepest > 0 {
            if files::make_directory(&place, rights).is_ok() {
                copy_skeleton(&entry.path(), &place, login, deepest - 1);
            }
        // A link stays a link, as useradd copies it.
        } else if meta.is_symlink() {
            if let Ok(target) = fs::read_link(entry.path()) {
                let _ = files::link_as(&place, &target.to_string_lossy(), rights);
            }
        } else if let (true, Ok(content)) = (meta.is_file(), fs::read(entry.path())) {
            let _ = files::write(&place, &content, rights);
        }
    }
}
