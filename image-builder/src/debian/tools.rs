//! Programs and files out of Debian packages, unpacked for the build and run where they lie.
//!
//! The host's own mke2fs or GRUB would make other bytes on every host. These are the suite's: started
//! by their own dynamic linker with their own libraries, so that neither root nor a chroot is needed.
#![expect(clippy::disallowed_methods, reason = "effects live here: it unpacks packages")]

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::deb::{self, DebError};

/// Unpacked packages.
#[derive(Debug, Clone)]
pub(crate) struct UnpackedTools {
    directory: PathBuf,
}

impl UnpackedTools {
    /// Folders of packages unpacked before.
    pub(crate) fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Unpacks a package's files that a build may need: no documentation.
    pub(crate) fn unpack_package(&self, package: &Path) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Read { package: package.to_owned(), source };
        let bytes = fs::read(package).map_err(failed)?;
        let data = deb::open_data(&bytes)
            .map_err(|source| UnpackError::Deb { package: package.to_owned(), source })?;
        self.unpack_tar(data).map_err(failed)
    }

    fn unpack_tar(&self, data: Box<dyn io::Read + '_>) -> io::Result<()> {
        let mut archive = tar::Archive::new(data);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let path = path.trim_start_matches("./");
            if path.starts_with("usr/share") || path.split('/').any(|part| part == "..") {
                continue;
            }
            let target = self.directory.join(path);
            self.refuse_link(Path::new(path))?;
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    // No set-user-ID: the build runs these as itself.
                    let mode = entry.header().mode()? & 0o777;
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    // A link that is already there would be followed.
                    let _ = fs::remove_file(&target);
                    fs::write(&target, bytes)?;
                    fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
                }
                tar::EntryType::Symlink => {
                    if let Some(link) = entry.link_name()? {
                        let _ = fs::remove_file(&target);
                        symlink(link, &target)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A file below a link would land where the link leads, which may be anywhere on this computer.
    fn refuse_link(&self, path: &Path) -> io::Result<()> {
        let is_link = |folder: &&Path| {
            fs::symlink_metadata(self.directory.join(folder)).is_ok_and(|found| found.is_symlink())
        };
        match path.ancestors().skip(1).find(is_link) {
            Some(link) => {
                Err(io::Error::other(format!("it has files below {}, which is a link", link.display())))
            }
            None => Ok(()),
        }
    }

    /// A command that runs one of the programs with its own libraries.
    pub(crate) fn tool_command(&self, program: &str) -> Command {
        let libraries = self.directory.join("usr/lib/x86_64-linux-gnu");
        // ld.so(8): called so, it starts a program with the libraries it is told, whatever the host has.
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            // mke2fs(8) takes its defaults from this file, and the host's may be another.
            .env("MKE2FS_CONFIG", self.directory.join("etc/mke2fs.conf"))
            .arg("--library-path")
            .arg(libraries)
            .arg(self.directory.join(program));
        command
    }

    /// A file of the packages.
    pub(crate) fn file_path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// A file's bytes.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, UnpackError> {
        let path = self.file_path(path);
        fs::read(&path).map_err(|source| UnpackError::Missing { path, source })
    }
}

/// Why a package could not be used by the build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("cannot open the package {package}")]
    Deb { package: PathBuf, source: DebError },
    #[error("the packages named under `boot` have no {path}; are they the ones of this suite?")]
    Missing { path: PathBuf, source: io::Error },
    #[error("cannot unpack {package}")]
    Read { package: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, Result<&str, &str>)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match content {
                Ok(text) => {
                    header.set_size(text.len() as u64);
                    archive.append_data(&mut header, path, text.as_bytes()).unwrap();
                }
                Err(link) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, path, link).unwrap();
                }
            }
        }
        archive.into_inner().unwrap()
    }

    fn unpacked(entries: &[(&str, Result<&str, &str>)]) -> (tempfile::TempDir, io::Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        let tools = UnpackedTools::in_directory(folder.path().join("tools"));
        let bytes = archive(entries);
        let outcome = tools.unpack_tar(Box::new(bytes.as_slice()));
        (folder, outcome)
    }

    #[test]
    fn files_and_links_land_in_the_folder() {
        let (folder, outcome) = unpacked(&[("usr/lib/a.so.1", Ok("a")), ("usr/lib/a.so", Err("a.so.1"))]);

        outcome.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("tools/usr/lib/a.so")).unwrap(), "a");
    }

    #[test]
    fn a_link_in_a_package_leads_nothing_out_of_the_folder() {
        let (folder, outcome) = unpacked(&[("usr/lib", Err("../../..")), ("usr/lib/evil", Ok("x"))]);
        assert!(outcome.unwrap_err().to_string().contains("below usr/lib, which is a link"));
        assert!(!folder.path().join("evil").exists());

        let (folder, outcome) = unpacked(&[("usr/evil", Err("../../evil")), ("usr/evil", Ok("x"))]);
        outcome.unwrap();
        assert!(!folder.path().join("evil").exists());
    }
}
