//! Home directories: made with what a new one begins with.
//!
//! Knows /etc/skel. Refuses to touch a home that is there. Invariant: everything in a new home is its
//! owner's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::accounts::{Defaults, Login};
use crate::files::{self, Change, Rights};
use crate::root::Root;
use crate::step_error::StepError;

const SKELETON: &str = "/etc/skel";
/// Deeper than any skeleton.
const DEEPEST: u32 = 16;

/// Makes a user's home, unless it is there.
pub(crate) fn make(root: &Root, login: &Login) -> Result<Change, StepError> {
    let home = root.path(&login.home);
    if home.exists() {
        return Ok(Change::None);
    }
    files::make_parents(&home, Rights { mode: 0o755, ..Rights::PUBLIC })?;
    let mode = Defaults::of(root).home_mode;
    files::make_directory(&home, Rights { uid: login.uid, gid: login.gid, mode })?;
    copy(&root.path(SKELETON), &home, login, DEEPEST);
    Ok(Change::Made)
}

/// The files a new home begins with. They are a comfort: what can't be copied is left out.
fn copy(from: &Path, to: &Path, login: &Login, deepest: u32) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let (place, Ok(meta)) = (to.join(entry.file_name()), entry.metadata()) else { continue };
        let rights = Rights { uid: login.uid, gid: login.gid, mode: meta.mode() & 0o777 };
        if meta.is_dir() && deepest > 0 {
            if files::make_directory(&place, rights).is_ok() {
                copy(&entry.path(), &place, login, deepest - 1);
            }
        } else if meta.is_symlink() {
            if let Ok(target) = fs::read_link(entry.path()) {
                let _ = files::link_as(&place, &target.to_string_lossy(), rights);
            }
        } else if let (true, Ok(content)) = (meta.is_file(), fs::read(entry.path())) {
            let _ = files::write(&place, &content, rights);
        }
    }
}
