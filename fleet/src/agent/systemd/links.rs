//! The links by which systemd finds unit files that lie elsewhere.
//!
//! They are made by hand and not by `LinkUnitFiles`: after that call systemd says `NeedDaemonReload=yes` of
//! every unit of the machine until it has read them all anew, which takes longer than a start. A unit that
//! it does not have in memory it finds without that: it looks whether its directories changed. Refuses to
//! know systemd's other links (`.wants`, aliases): systemd makes and removes those itself. Invariant: a file
//! that somebody put into systemd's directory is never replaced.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::model::unit_name::UnitName;
use crate::settings::SystemdInstance;

/// The directory of systemd in which links last until the next boot.
#[derive(Debug, Clone)]
pub struct Links {
    directory: PathBuf,
}

impl Links {
    /// Links in this directory.
    #[must_use]
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where the machine's systemd looks, or the user's; see "Unit File Load Path" in systemd.unit(5).
    #[must_use]
    pub fn of_systemd(instance: SystemdInstance) -> Self {
        if instance == SystemdInstance::System {
            return Self::in_directory("/run/systemd/system".into());
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid())), PathBuf::from);
        Self::in_directory(runtime.join("systemd/user"))
    }

    /// Makes a unit file known under its name.
    pub fn link_unit(&self, file: &Path) -> io::Result<()> {
        let Some(name) = file.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let link = self.directory.join(name);
        match fs::read_link(&link) {
            // Each change of the directory makes systemd read it anew.
            Ok(target) if target == file => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.directory)?;
                return symlink(file, link);
            }
            // No link, but a file of somebody else.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let text = format!("{} is a file of somebody else; remove it", link.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(error) => return Err(error),
        }
        let mut new = link.clone().into_os_string();
        new.push(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(file, &new)?,
        }
        fs::rename(new, link)
    }

    /// Removes the link to a unit file, if it is still there.
    pub fn unlink_unit(&self, file: &Path) -> io::Result<()> {
        let Some(name) = file.file_name() else { return Ok(()) };
        let link = self.directory.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == file) { fs::remove_file(link) } else { Ok(()) }
    }

    /// The units whose links lead to files in `files` that are gone: what a fleetd left that could not
    /// disable units, or that died before it was done.
    #[must_use]
    pub fn dangling_units(&self, files: &Path) -> Vec<UnitName> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let (folders, links): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.partition(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()));
        let inside = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let leads_nowhere = |link: &PathBuf| {
            fs::read_link(link).is_ok_and(|target| target.starts_with(files) && !target.exists())
        };
        let names = links.into_iter().chain(inside.map(|entry| entry.path())).filter(leads_nowhere);
        let mut units: Vec<UnitName> =
            names.filter_map(|link| UnitName::parse(link.file_name()?.to_str()?).ok()).collect();
        units.sort();
        units.dedup();
        units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_last_file_and_goes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let links = Links::in_directory(folder.path().join("systemd"));
        let [old, new] = ["old", "new"].map(|place| folder.path().join(place).join("a.service"));
        let leads = || fs::read_link(folder.path().join("systemd/a.service")).ok();

        links.link_unit(&old).unwrap();
        links.link_unit(&new).unwrap();

        assert_eq!(leads(), Some(new.clone()));
        links.unlink_unit(&old).unwrap();
        assert_eq!(leads(), Some(new.clone()));
        links.unlink_unit(&new).unwrap();
        assert_eq!(leads(), None);
    }

    #[test]
    fn a_file_of_somebody_else_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.service"), "theirs").unwrap();

        let outcome =
            Links::in_directory(folder.path().to_owned()).link_unit(Path::new("/run/fleet/units/a.service"));

        assert!(outcome.unwrap_err().to_string().contains("is a file of somebody else"));
        assert_eq!(fs::read_to_string(folder.path().join("a.service")).unwrap(), "theirs");
    }

    #[test]
    fn links_to_files_that_are_gone_are_found_in_targets_too() {
        let folder = tempfile::tempdir().unwrap();
        let (systemd, files) = (folder.path().join("systemd"), folder.path().join("units"));
        fs::create_dir_all(systemd.join("multi-user.target.wants")).unwrap();
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("here.service"), "").unwrap();
        for name in ["here.service", "gone.service", "multi-user.target.wants/gone.service"] {
            let file = files.join(name.rsplit('/').next().unwrap());
            symlink(file, systemd.join(name)).unwrap();
        }
        symlink("/nowhere/other.service", systemd.join("other.service")).unwrap();

        let dangling = Links::in_directory(systemd).dangling_units(&files);

        assert_eq!(dangling, [UnitName::parse("gone.service").unwrap()]);
    }
}
