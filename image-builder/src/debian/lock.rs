//! `packages.lock`: which packages, of which version and digest, an image was made of.
//!
//! First `epoch SECONDS`, the moment that every time in the image is set to, and `initagent SHA256`, the program
//! that becomes the initramfs's init and the image's agent; then a line per package, sorted:
//! `name version architecture sha256 size`. Two sections, since an image
//! has two kinds of packages: those whose files are in its root, and those that only lend it their
//! boot loader or tools. The same lock, spec and epoch give the same image bytes.

use std::collections::BTreeMap;
use std::fmt;

use image_format::digest::Sha256;

/// One package of the archive, by what identifies its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockedPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) sha256: Sha256,
    /// Bytes of the `.deb`.
    pub(crate) size: u64,
}

impl LockedPackage {
    /// The name apt gives the file in its cache.
    pub(crate) fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }

    /// `name=version`, as apt takes it.
    pub(crate) fn pinned_name(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// What a package is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockSection {
    /// Its files may be in the image's root.
    Root,
    /// It lends its boot loader or a tool to the build.
    Tools,
}

impl LockSection {
    const ALL: [(Self, &'static str); 2] = [(Self::Root, "[root]"), (Self::Tools, "[tools]")];
}

/// Every package of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PackageLock {
    /// Seconds since 1970.
    pub(crate) epoch: u64,
    /// The agent's digest; locks of older builds do not say it.
    pub(crate) initagent: Option<Sha256>,
    sections: BTreeMap<LockSection, Vec<LockedPackage>>,
}

impl PackageLock {
    pub(crate) fn new(epoch: u64, mut root: Vec<LockedPackage>, mut tools: Vec<LockedPackage>) -> Self {
        // apt's order changes with its resolver, and people compare locks line by line.
        root.sort();
        tools.sort();
        Self {
            epoch,
            initagent: None,
            sections: BTreeMap::from([(LockSection::Root, root), (LockSection::Tools, tools)]),
        }
    }

    pub(crate) fn packages_of(&self, section: LockSection) -> &[LockedPackage] {
        self.sections.get(&section).map_or(&[], Vec::as_slice)
    }

    /// Parses the text of a lock file.
    pub(crate) fn parse_lock(text: &str) -> Result<Self, ParseLockError> {
        let mut lock = Self::default();
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(epoch) = line.strip_prefix("epoch ") {
                lock.epoch = epoch.parse().map_err(|_| ParseLockError::Epoch { line: line_number })?;
                continue;
            }
            if let Some(digest) = line.strip_prefix("initagent ").filter(|_| section.is_none()) {
                let digest = digest.parse().map_err(|_| ParseLockError::Agent { line: line_number })?;
                lock.initagent = Some(digest);
                continue;
            }
            if let Some((found, _)) = LockSection::ALL.iter().find(|(_, title)| *title == line) {
                section = Some(*found);
                continue;
            }
            let section = section.ok_or(ParseLockError::NoSection { line: line_number })?;
            let package = parse_package(line).ok_or(ParseLockError::Package { line: line_number })?;
            lock.sections.entry(section).or_default().push(package);
        }
        Ok(lock)
    }
}

fn parse_package(line: &str) -> Option<LockedPackage> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let package = LockedPackage {
        name: words.next()?,
        version: words.next()?,
        architecture: words.next()?,
        sha256: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
    };
    let known = is_name(&package.name) && is_version(&package.version) && is_name(&package.architecture);
    (known && words.next().is_none()).then_some(package)
}

/// A package's or an architecture's name becomes a file's and a word of apt's command line: no way out of a folder
/// and no option (Debian policy, 5.6.7).
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.starts_with(|char: char| char.is_ascii_alphanumeric()) && text.bytes().all(allowed)
}

/// Debian policy, 5.6.12.
fn is_version(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte);
    text.starts_with(|char: char| char.is_ascii_alphanumeric()) && text.bytes().all(allowed)
}

impl fmt::Display for PackageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "epoch {}", self.epoch)?;
        if let Some(digest) = &self.initagent {
            writeln!(f, "initagent {digest}")?;
        }
        writeln!(f, "# name version architecture sha256 size")?;
        for (section, title) in LockSection::ALL {
            writeln!(f, "{title}")?;
            for LockedPackage { name, version, architecture, sha256, size } in self.packages_of(section) {
                writeln!(f, "{name} {version} {architecture} {sha256} {size}")?;
            }
        }
        Ok(())
    }
}

/// Why a lock file could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseLockError {
    #[error("line {line}: not `initagent SHA256`")]
    Agent { line: usize },
    #[error("line {line}: not `epoch SECONDS`")]
    Epoch { line: usize },
    #[error("line {line}: a package before the first section; start with `[root]`")]
    NoSection { line: usize },
    #[error("line {line}: not `name version architecture sha256 size`")]
    Package { line: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "epoch 1700000000\n# name version architecture sha256 size\n[root]\n\
        bash 5.2.37-2+b10 amd64 2fd7b04f1b7caa29c4e683f5216e6af354a41e3cdcf6e75394d7cda680f9ab82 1500792\n[tools]\n";

    #[test]
    fn a_lock_round_trips() {
        let lock = PackageLock::parse_lock(TEXT).unwrap();

        assert_eq!(lock.to_string(), TEXT);
        assert_eq!(lock.packages_of(LockSection::Root)[0].pinned_name(), "bash=5.2.37-2+b10");
    }

    #[test]
    fn a_shortened_digest_is_refused_with_its_line() {
        let text = TEXT.replace("9ab82", "9ab8");

        assert_eq!(PackageLock::parse_lock(&text), Err(ParseLockError::Package { line: 4 }));
    }

    #[test]
    fn the_agent_is_part_of_the_lock() {
        let digest = "2fd7b04f1b7caa29c4e683f5216e6af354a41e3cdcf6e75394d7cda680f9ab82";
        let text = TEXT.replacen('\n', &format!("\ninitagent {digest}\n"), 1);

        assert_eq!(PackageLock::parse_lock(&text).unwrap().to_string(), text);
        assert_eq!(
            PackageLock::parse_lock(&text.replace("initagent 2", "initagent ")),
            Err(ParseLockError::Agent { line: 2 })
        );
    }

    #[test]
    fn what_is_no_name_of_a_package_reaches_neither_a_path_nor_apt() {
        for (from, to) in [
            ("bash ", "../../etc/bash "),
            ("bash ", "-oDir::Bin=x "),
            ("bash ", "bash/unstable "),
            ("5.2.37-2+b10", "../5"),
            ("5.2.37-2+b10", "-5"),
            ("5.2.37-2+b10", "5/../../x"),
            ("amd64", "../amd64"),
            ("amd64", "-amd64"),
        ] {
            let refused = PackageLock::parse_lock(&TEXT.replace(from, to));
            assert_eq!(refused, Err(ParseLockError::Package { line: 4 }), "{to}");
        }
    }

    #[test]
    fn an_epoch_is_escaped_in_the_file_name() {
        let mut package = PackageLock::parse_lock(TEXT).unwrap().packages_of(LockSection::Root)[0].clone();
        package.version = "1:2.3".to_owned();

        assert_eq!(package.file_name(), "bash_1%3a2.3_amd64.deb");
    }
}
