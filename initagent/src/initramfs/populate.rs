//! Brings folders of the image onto STATE: whole when they are new there, and afterwards only the
//! sub-folders that a newer image added.
//!
//! Knows owners, modes and links. Refuses to touch what is there already.
//! Invariant: a folder appears with all its content at once, so a power cut leaves none of it half.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// The name under which a folder is filled before it gets its own.
const UNFINISHED: &str = ".catamaran-unfinished";

/// What could not be brought over.
#[derive(Debug, thiserror::Error)]
#[error("cannot bring {path} from the image onto STATE")]
pub(super) struct PopulateError {
    path: PathBuf,
    source: io::Error,
}

/// What to do with a folder that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It belongs to the machine.
    Keep,
    /// Sub-folders that the image has and it lacks are added.
    Extend,
}

/// Brings `from`, a folder of the image, to `to`, on STATE.
pub(super) fn populate(from: &Path, to: &Path, existing: Existing) -> Result<(), PopulateError> {
    let failed = |source| PopulateError { path: from.to_owned(), source };
    match (to.symlink_metadata().is_ok(), existing) {
        (false, _) => create(from, to).map_err(failed),
        (true, Existing::Keep) => Ok(()),
        (true, Existing::Extend) => extend(from, to),
    }
}

/// Fills the folder under another name, stores it, and gives it its name.
fn create(from: &Path, to: &Path) -> io::Result<()> {
    let parent = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let unfinished = parent.join(UNFINISHED);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    copy_folder(from, &unfinished)?;
    nix::unistd::syncfs(&File::open(parent)?)?;
    fs::rename(&unfinished, to)
}

fn extend(from: &Path, to: &Path) -> Result<(), PopulateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PopulateError { path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if !entry.file_type().map_err(failed(&source))?.is_dir() {
            continue;
        }
        // What the machine made into a link or a file stays one.
        if !target.symlink_metadata().is_ok_and(|there| !there.is_dir()) {
            populate(&source, &target, Existing::Extend)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            let link = source.symlink_metadata()?;
            lchown(&target, Some(link.uid()), Some(link.gid()))?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            own(&target, &source.metadata()?)?;
        }
        // Sockets, pipes and devices are made by who needs them.
    }
    own(to, &from.metadata()?)
}

/// Owner first: changing it takes the set-id bits away.
fn own(path: &Path, like: &Metadata) -> io::Result<()> {
    chown(path, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(like.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::TempDir {
        let image = tempfile::tempdir().unwrap();
        let var = image.path().join("var");
        fs::create_dir_all(var.join("lib/etcd")).unwrap();
        fs::set_permissions(var.join("lib/etcd"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::write(var.join("lib/seed"), "from the image").unwrap();
        symlink("/run/lock", var.join("lock")).unwrap();
        image
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_folder_comes_with_its_content_and_modes() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let var = state.path().join("var");

        populate(&image.path().join("var"), &var, Existing::Extend).unwrap();

        assert_eq!(mode(&var.join("lib/etcd")), 0o2770);
        assert_eq!(fs::read_to_string(var.join("lib/seed")).unwrap(), "from the image");
        assert_eq!(fs::read_link(var.join("lock")).unwrap(), Path::new("/run/lock"));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_the_machine_changed_stays_and_only_new_folders_are_added() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let (from, var) = (image.path().join("var"), state.path().join("var"));
        populate(&from, &var, Existing::Extend).unwrap();
        fs::write(var.join("lib/seed"), "from the machine").unwrap();
        fs::remove_file(var.join("lock")).unwrap();
        fs::create_dir(from.join("lib/docker")).unwrap();
        fs::write(from.join("lib/docker/config"), "new").unwrap();
        fs::write(from.join("lib/late"), "new").unwrap();

        populate(&from, &var, Existing::Extend).unwrap();

        assert_eq!(fs::read_to_string(var.join("lib/seed")).unwrap(), "from the machine");
        assert_eq!(fs::read_to_string(var.join("lib/docker/config")).unwrap(), "new");
        assert!(!var.join("lock").exists() && !var.join("lib/late").exists());
    }

    #[test]
    fn a_folder_that_belongs_to_the_machine_is_not_extended() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let home = state.path().join("home");
        fs::create_dir(&home).unwrap();

        populate(&image.path().join("var"), &home, Existing::Keep).unwrap();

        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_a_power_cut_left_unfinished_is_begun_anew() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let unfinished = state.path().join(UNFINISHED);
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join("half"), "").unwrap();
        let var = state.path().join("var");

        populate(&image.path().join("var"), &var, Existing::Extend).unwrap();

        assert!(!var.join("half").exists() && var.join("lib/seed").exists());
    }
}
