//! Brings folders of the image onto STATE: whole when they are new there, and afterwards only the
//! sub-folders that a newer image added.
//!
//! Knows owners, modes and links. Refuses to touch what is there already.
//! Invariant: a folder appears with all its content at once, so a power cut leaves none of it half.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// Where folders are filled before they get their places, on the same file system.
const WORKSHOP: &str = ".catamaran-unfinished";

/// What could not be brought over.
#[derive(Debug, thiserror::Error)]
#[error("cannot bring {path} from the image onto STATE")]
pub(crate) struct PopulateError {
    path: PathBuf,
    source: io::Error,
}

/// What to do with a folder that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExistingFolder {
    /// It belongs to the machine.
    Keep,
    /// Sub-folders that the image has and it lacks are added.
    Extend,
}

/// A folder of the image that STATE lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MissingFolder {
    from: PathBuf,
    to: PathBuf,
}

/// Brings these folders of the image to the folders of the same names on STATE.
pub(super) fn populate_state(
    image: &Path,
    state: &Path,
    folders: &[(&str, ExistingFolder)],
) -> Result<(), PopulateError> {
    let mut missing = Vec::new();
    for (name, existing) in folders {
        find_missing(&image.join(name), &state.join(name), *existing, &mut missing)?;
    }
    if missing.is_empty() { Ok(()) } else { create_all(&missing, state) }
}

fn find_missing(
    from: &Path,
    to: &Path,
    existing: ExistingFolder,
    missing: &mut Vec<MissingFolder>,
) -> Result<(), PopulateError> {
    let there = match to.symlink_metadata() {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing.push(MissingFolder { from: from.to_owned(), to: to.to_owned() });
            return Ok(());
        }
        // A folder that a damaged disk does not give back is not one that is missing.
        Err(source) => return Err(PopulateError { path: to.to_owned(), source }),
    };
    // What the machine made into a link or a file stays one.
    if existing == ExistingFolder::Keep || !there.is_dir() {
        return Ok(());
    }
    let failed = |source| PopulateError { path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            find_missing(&entry.path(), &to.join(entry.file_name()), existing, missing)?;
        }
    }
    Ok(())
}

/// Fills all of them in the workshop, stores that with one sync, and moves each to its place.
fn create_all(missing: &[MissingFolder], state: &Path) -> Result<(), PopulateError> {
    let workshop = state.join(WORKSHOP);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PopulateError { path, source }
    };
    if workshop.exists() {
        fs::remove_dir_all(&workshop).map_err(failed(&workshop))?;
    }
    fs::create_dir(&workshop).map_err(failed(&workshop))?;
    let filled: Vec<PathBuf> = (0..missing.len()).map(|number| workshop.join(number.to_string())).collect();
    for (MissingFolder { from, .. }, at) in missing.iter().zip(&filled) {
        copy_folder(from, at).map_err(failed(from))?;
    }
    // The first boot waited for five syncs before, one for each folder.
    let synced = File::open(state).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
    synced.map_err(failed(state))?;
    for (MissingFolder { from, to }, at) in missing.iter().zip(&filled) {
        // rename(2): the folder appears with all that is in it.
        fs::rename(at, to).map_err(failed(from))?;
    }
    fs::remove_dir(&workshop).map_err(failed(&workshop))
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
            copy_ownership(&target, &source.metadata()?)?;
        }
        // Sockets, pipes and devices are made by who needs them.
    }
    copy_ownership(to, &from.metadata()?)
}

/// Owner first: changing it takes the set-id bits away.
fn copy_ownership(path: &Path, like: &Metadata) -> io::Result<()> {
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

    fn bring(image: &tempfile::TempDir, state: &tempfile::TempDir, existing: ExistingFolder) {
        populate_state(image.path(), state.path(), &[("var", existing)]).unwrap();
    }

    #[test]
    fn a_new_folder_comes_with_its_content_and_modes() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());

        bring(&image, &state, ExistingFolder::Extend);

        let var = state.path().join("var");
        assert_eq!(mode(&var.join("lib/etcd")), 0o2770);
        assert_eq!(fs::read_to_string(var.join("lib/seed")).unwrap(), "from the image");
        assert_eq!(fs::read_link(var.join("lock")).unwrap(), Path::new("/run/lock"));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_the_machine_changed_stays_and_only_new_folders_are_added() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let (from, var) = (image.path().join("var"), state.path().join("var"));
        bring(&image, &state, ExistingFolder::Extend);
        fs::write(var.join("lib/seed"), "from the machine").unwrap();
        fs::remove_file(var.join("lock")).unwrap();
        fs::create_dir(from.join("lib/docker")).unwrap();
        fs::write(from.join("lib/docker/config"), "new").unwrap();
        fs::write(from.join("lib/late"), "new").unwrap();

        bring(&image, &state, ExistingFolder::Extend);

        assert_eq!(fs::read_to_string(var.join("lib/seed")).unwrap(), "from the machine");
        assert_eq!(fs::read_to_string(var.join("lib/docker/config")).unwrap(), "new");
        assert!(!var.join("lock").exists() && !var.join("lib/late").exists());
    }

    #[test]
    fn a_folder_that_the_machine_made_a_link_stays_one() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        bring(&image, &state, ExistingFolder::Extend);
        let etcd = state.path().join("var/lib/etcd");
        fs::remove_dir(&etcd).unwrap();
        symlink("/srv/etcd", &etcd).unwrap();
        fs::create_dir(image.path().join("var/lib/etcd/member")).unwrap();

        bring(&image, &state, ExistingFolder::Extend);

        assert_eq!(fs::read_link(&etcd).unwrap(), Path::new("/srv/etcd"));
    }

    #[test]
    fn a_folder_that_belongs_to_the_machine_is_not_extended() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let var = state.path().join("var");
        fs::create_dir(&var).unwrap();

        bring(&image, &state, ExistingFolder::Keep);

        assert_eq!(fs::read_dir(&var).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_a_power_cut_left_unfinished_is_begun_anew() {
        let (image, state) = (image(), tempfile::tempdir().unwrap());
        let unfinished = state.path().join(WORKSHOP).join("0");
        fs::create_dir_all(&unfinished).unwrap();
        fs::write(unfinished.join("half"), "").unwrap();

        bring(&image, &state, ExistingFolder::Extend);

        let var = state.path().join("var");
        assert!(!var.join("half").exists() && var.join("lib/seed").exists());
    }
}
