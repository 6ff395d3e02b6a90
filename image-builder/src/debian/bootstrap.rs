//! Makes a root tree out of downloaded packages: mmdebstrap on a local archive that holds exactly
//! the locked packages, so that nothing else can get in and no network is needed.
//!
//! Documentation: mmdebstrap(1), dpkg(1) for `path-exclude`.
#![expect(clippy::disallowed_methods, reason = "effects live here: it runs mmdebstrap")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_format::digest::Sha256;

use super::lock::LockedPackage;
use super::stanza::Stanza;
use crate::process::{self, InterruptFlag, RunError};
use crate::progress::StepMeter;

/// Files that no image carries; they are not even unpacked. Licences stay.
const EXCLUDED: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    // Debian policy, 12.5: copyright files are the licences, which ask to be distributed.
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    // The initramfs is this program's; Debian's would take a third of the time.
    "path-exclude=/etc/kernel/postinst.d/initramfs-tools",
];

/// The folder of the local archive where mmdebstrap works.
const SCRATCH: &str = "scratch";

/// Everything that a bootstrapped tree depends on.
#[derive(Debug)]
pub(crate) struct BootstrapInputs<'a> {
    pub(crate) suite: &'a str,
    pub(crate) packages: &'a [LockedPackage],
    /// Seconds since 1970.
    pub(crate) epoch: u64,
}

impl BootstrapInputs<'_> {
    /// Names the tree by all that it is made of.
    pub(crate) fn cache_key(&self) -> String {
        let digests: Vec<String> = self.packages.iter().map(|package| package.sha256.to_string()).collect();
        let text =
            format!("root 1 {} {} {} {}", self.suite, self.epoch, EXCLUDED.join(" "), digests.join(" "));
        Sha256::digest_of(text.as_bytes()).to_string()
    }

    /// Writes the tree as a tar to `output`. `stanzas` are the packages' paragraphs of the archive's index;
    /// `deb` finds a package's file.
    pub(crate) fn write_tree(
        &self,
        stanzas: &[Stanza],
        output: &File,
        deb: impl Fn(&LockedPackage) -> PathBuf,
        interrupt: &InterruptFlag,
        meter: &StepMeter,
    ) -> Result<(), BootstrapError> {
        // In a folder that the mapped root of an unprivileged build can read, too.
        let repository = tempfile::Builder::new().prefix("image-builder-").tempdir();
        let repository = repository.map_err(BootstrapError::Repository)?;
        self.write_repository(repository.path(), stanzas, deb).map_err(BootstrapError::Repository)?;
        // dpkg says two lines of every package.
        let (mut done, total) = (0, 2 * self.packages.len() as u64);
        let hear = |line: &str| {
            if line.starts_with("Unpacking ") || line.starts_with("Setting up ") {
                done += 1;
                meter.set_progress(done, total);
            }
        };
        Ok(process::run_into(self.bootstrap_command(repository.path()), output, interrupt, hear)?)
    }

    fn write_repository(
        &self,
        directory: &Path,
        stanzas: &[Stanza],
        deb: impl Fn(&LockedPackage) -> PathBuf,
    ) -> io::Result<()> {
        // Set, not asked for at creation, where a umask would have a say.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        // An unprivileged build writes there as another user.
        fs::create_dir(directory.join(SCRATCH))?;
        fs::set_permissions(directory.join(SCRATCH), fs::Permissions::from_mode(0o1777))?;
        let mut index = io::BufWriter::new(File::create(directory.join("Packages"))?);
        index.get_ref().set_permissions(fs::Permissions::from_mode(0o644))?;
        for package in self.packages {
            let file = package.file_name();
            let source = deb(package);
            // A copy only where the cache is on another file system: the packages are some hundred MB.
            if fs::hard_link(&source, directory.join(&file)).is_err() {
                fs::copy(&source, directory.join(&file))?;
            }
            fs::set_permissions(directory.join(&file), fs::Permissions::from_mode(0o644))?;
            let known = stanzas.iter().find(|stanza| {
                stanza.field_value("Package") == Some(&package.name)
                    && stanza.field_value("Version") == Some(&package.version)
            });
            let missing =
                || io::Error::other(format!("the index has no paragraph about {}", package.pinned_name()));
            let mut stanza = known.ok_or_else(missing)?.clone();
            stanza.set_field("Filename", format!("./{file}"));
            writeln!(index, "{stanza}")?;
        }
        index.flush()
    }

    fn bootstrap_command(&self, repository: &Path) -> Command {
        let names: Vec<&str> = self.packages.iter().map(|package| package.name.as_str()).collect();
        let mut command = Command::new("mmdebstrap");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            // What it leaves behind when it is interrupted goes with the folder.
            .env("TMPDIR", repository.join(SCRATCH))
            .env("SOURCE_DATE_EPOCH", self.epoch.to_string())
            // mmdebstrap(1): this variant installs essential packages and apt, and everything else by name.
            .args(["--verbose", "--variant=apt", "--format=tar", "--skip=check/qemu"])
            .arg(format!("--include={}", names.join(",")))
            // dpkg(1): without a sync for each file. After a power cut the tree is made again anyhow.
            .arg("--dpkgopt=force-unsafe-io")
            .args(EXCLUDED.iter().map(|option| format!("--dpkgopt={option}")))
            .arg(self.suite)
            .arg("-")
            // Each package was checked against apt's signed index and the lock before. A signature here would
            // be our own.
            .arg(format!("deb [trusted=yes] copy:{} ./", repository.display()));
        command
    }
}

/// Why no root tree could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    #[error("cannot lay out the local archive of packages")]
    Repository(#[source] io::Error),
    #[error("cannot unpack and configure the packages")]
    Run(#[from] RunError),
}
