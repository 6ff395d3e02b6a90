//! A Debian archive as seen through a private apt: its own lists, status and cache, so that neither
//! the host's packages nor its configuration have a say in what an image is made of.
//!
//! apt verifies the archive's signature and each package's digest; this module only asks it.
//!
//! Documentation: apt.conf(5), apt-secure(8), sources.list(5), apt-get(8), apt-patterns(7).
#![expect(clippy::disallowed_methods, reason = "effects live here: it runs apt")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::lock::LockedPackage;
use super::stanza::{self, Stanza};

/// A place apt gets packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveSource {
    /// Where the suite itself is.
    pub(crate) mirror: String,
    /// Where the suite's security fixes are, if they are taken.
    pub(crate) security_mirror: Option<String>,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    /// The keys that may sign the archive's index.
    pub(crate) keyring: PathBuf,
}

impl ArchiveSource {
    /// As lines of `sources.list(5)`.
    fn source_lines(&self) -> String {
        let Self { mirror, security_mirror, suite, components, keyring } = self;
        let tail = format!("{}\n", components.join(" "));
        let entry =
            // `signed-by` lets only this keyring sign, not every key that the host trusts for other archives.
            |uri: &str, suite: &str| format!("deb [signed-by={}] {uri} {suite} {tail}", keyring.display());
        let security = security_mirror.as_ref().map(|uri| entry(uri, &format!("{suite}-security")));
        entry(mirror, suite) + &security.unwrap_or_default()
    }
}

/// A private apt, ready to resolve and download.
#[derive(Debug)]
pub(crate) struct AptArchive {
    directory: PathBuf,
    source: ArchiveSource,
}

impl AptArchive {
    /// Sets the private apt up below `directory`; what it has downloaded before is kept.
    pub(crate) fn open_archive(directory: &Path, source: ArchiveSource) -> Result<Self, ArchiveError> {
        let archive = Self { directory: directory.to_owned(), source };
        archive
            .write_configuration()
            .map_err(|source| ArchiveError::Prepare { directory: directory.to_owned(), source })?;
        Ok(archive)
    }

    fn write_configuration(&self) -> io::Result<()> {
        let directory = &self.directory;
        for folder in [
            "lists/partial",
            "archives/partial",
            "unfetched/partial",
            "etc/preferences.d",
            "etc/apt.conf.d",
            "state",
        ] {
            fs::create_dir_all(directory.join(folder))?;
        }
        fs::write(directory.join("state/status"), "")?;
        let root = directory.display();
        fs::write(
            directory.join("apt.conf"),
            format!(
                // An empty status is a machine without packages, so that apt resolves everything anew.
                // Without a sandbox user, since an unprivileged build cannot change to one. Without
                // recommended packages: an image lists what it is for.
                "Dir \"{root}\";\nDir::State \"{root}/state\";\nDir::State::status \"{root}/state/status\";\n\
                 Dir::State::Lists \"{root}/lists\";\nDir::Cache \"{root}\";\nDir::Cache::archives \"{root}/archives\";\n\
                 Dir::Etc \"{root}/etc\";\nDir::Etc::sourcelist \"{root}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\n\
                 APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nAcquire::ForceHash \"SHA256\";\n\
                 Acquire::Retries \"3\";\nDebug::NoLocking \"true\";\n"
            ),
        )?;
        fs::write(directory.join("sources.list"), self.source.source_lines())
    }

    /// Fetches the archive's current index.
    pub(crate) fn update_index(&self) -> Result<(), ArchiveError> {
        // apt-get(8): without it a failed fetch is a warning, and the build would go on with an old index.
        self.run_apt("apt-get", ["-q", "-y", "-o", "APT::Update::Error-Mode=any", "update"]).map(drop)
    }

    /// When the archive last changed, seconds since 1970: the newest `Date` of its signed indices. It
    /// is the same for everybody who asks the archive on the same day.
    pub(crate) fn last_change(&self) -> Result<u64, ArchiveError> {
        let folder = self.directory.join("lists");
        let failed = |source| ArchiveError::Prepare { directory: folder.clone(), source };
        let dates = fs::read_dir(&folder).map_err(failed)?.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let release = name.to_string_lossy().ends_with("Release");
            let text = if release { fs::read_to_string(entry.path()).ok()? } else { return None };
            let date = text.lines().find_map(|line| line.strip_prefix("Date: "))?;
            parse_date(date)
        });
        // Not the clock: the same archive must give the same image tomorrow.
        dates.max().ok_or(ArchiveError::NoDate)
    }

    /// Whether the index knows all of these versions.
    pub(crate) fn has_versions(&self, packages: &[LockedPackage]) -> Result<bool, ArchiveError> {
        Ok(self.missing_versions(packages)?.is_empty())
    }

    /// Every package that installing `patterns` on an empty system brings, at the version the index
    /// has. A pattern is a name, `name=version`, or one of apt's (`?essential`).
    pub(crate) fn resolve_versions(&self, patterns: &[String]) -> Result<Vec<LockedPackage>, ArchiveError> {
        // apt does not print what it has already fetched, so it is shown an empty cache.
        let unfetched = format!("Dir::Cache::archives={}", self.directory.join("unfetched").display());
        // apt resolves as it would install. A resolver of our own would decide otherwise some day.
        let fixed = ["-qq", "-y", "--print-uris", "-o", unfetched.as_str(), "install"].map(str::to_owned);
        let output = self.run_apt("apt-get", fixed.iter().chain(patterns))?;
        output
            .lines()
            .filter(|line| line.starts_with('\''))
            .map(|line| parse_uri_line(line).ok_or_else(|| ArchiveError::UriLine { line: line.to_owned() }))
            .collect()
    }

    /// Those of `packages` whose exact version the index no longer has.
    pub(crate) fn missing_versions(
        &self,
        packages: &[LockedPackage],
    ) -> Result<Vec<LockedPackage>, ArchiveError> {
        let names = packages.iter().map(|package| package.name.clone());
        let output = self.run_apt("apt-cache", ["madison".to_owned()].into_iter().chain(names))?;
        let offered: std::collections::BTreeSet<(&str, &str)> = output
            .lines()
            .filter_map(|line| {
                let mut columns = line.split('|').map(str::trim);
                Some((columns.next()?, columns.next()?))
            })
            .collect();
        Ok(packages
            .iter()
            .filter(|package| !offered.contains(&(package.name.as_str(), package.version.as_str())))
            .cloned()
            .collect())
    }

    /// Downloads packages that are not in the cache yet; apt checks each digest against the index.
    pub(crate) fn download_packages(&self, packages: &[LockedPackage]) -> Result<(), ArchiveError> {
        let fixed = ["-q", "-y", "--download-only", "install"].map(str::to_owned);
        let pinned: Vec<String> = packages.iter().map(LockedPackage::pinned_name).collect();
        self.run_apt("apt-get", fixed.iter().chain(&pinned)).map(drop)
    }

    /// The package's file in the cache.
    pub(crate) fn package_path(&self, package: &LockedPackage) -> PathBuf {
        self.directory.join("archives").join(package.file_name())
    }

    /// The index's paragraphs about these packages, in no particular order.
    pub(crate) fn package_stanzas(&self, packages: &[LockedPackage]) -> Result<Vec<Stanza>, ArchiveError> {
        let pinned = packages.iter().map(LockedPackage::pinned_name);
        let output = self.run_apt("apt-cache", ["show".to_owned()].into_iter().chain(pinned))?;
        Ok(stanza::parse_stanzas(&output))
    }

    fn run_apt<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, ArchiveError> {
        let output = Command::new(program)
            .args(arguments)
            .env("APT_CONFIG", self.directory.join("apt.conf"))
            // apt's answers are read, and they are translated elsewhere.
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .map_err(|source| ArchiveError::Start { program: program.to_owned(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaints: Vec<String> = String::from_utf8_lossy(&output.stderr)
            .lines()
            .filter(|line| line.starts_with("E:") || line.starts_with("W:"))
            .map(str::to_owned)
            .collect();
        Err(ArchiveError::Apt { mirror: self.source.mirror.clone(), complaints: complaints.join("; ") })
    }
}

/// A line of `apt-get --print-uris`: `'URI' FILE SIZE SHA256:DIGEST`.
fn parse_uri_line(line: &str) -> Option<LockedPackage> {
    let (_uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let file = words.next()?;
    let size = words.next()?.parse().ok()?;
    let sha256 = words.next()?.strip_prefix("SHA256:")?.parse().ok()?;
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    Some(LockedPackage {
        name: parts.next()?.to_owned(),
        // apt escapes what some file systems do not take in a name.
        version: parts.next()?.replace("%3a", ":").replace("%2b", "+"),
        architecture: parts.next()?.to_owned(),
        sha256,
        size,
    })
}

/// A date of RFC 2822, as `Release` files carry it, always in UTC.
fn parse_date(text: &str) -> Option<u64> {
    let text =
        text.trim().strip_suffix("UTC").map_or_else(|| text.trim().to_owned(), |date| format!("{date}+0000"));
    let moment = jiff::fmt::rfc2822::parse(&text).ok()?.timestamp();
    u64::try_from(moment.as_second()).ok()
}

/// Why the archive did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("cannot prepare a private apt in {directory}")]
    Prepare { directory: PathBuf, source: io::Error },
    #[error("cannot run {program}: the build needs apt (package `apt`)")]
    Start { program: String, source: io::Error },
    #[error("apt could not get packages from {mirror}: {complaints}")]
    Apt { mirror: String, complaints: String },
    #[error("the archive's index says no date")]
    NoDate,
    #[error("apt printed a line that is no package: {line}")]
    UriLine { line: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archives_date_is_read() {
        assert_eq!(parse_date("Sat, 14 Nov 2026 10:00:00 UTC"), Some(1_794_650_400));
    }

    #[test]
    fn a_printed_uri_names_a_package_with_its_epoch() {
        let line = "'http://m.test/pool/main/l/login/login_1%3a4.16_amd64.deb' login_1%3a4.16_amd64.deb 82 \
                    SHA256:2fd7b04f1b7caa29c4e683f5216e6af354a41e3cdcf6e75394d7cda680f9ab82";

        let package = parse_uri_line(line).unwrap();

        assert_eq!((package.name.as_str(), package.version.as_str(), package.size), ("login", "1:4.16", 82));
    }
}
