//! Chooses, fetches and unpacks packages; what was made before is found in the cache by its key.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;

use super::{BuildContext, BuildError};
use crate::debian::archive::AptArchive;
use crate::debian::bootstrap::BootstrapInputs;
use crate::debian::lock::{LockSection, LockedPackage, PackageLock};
use crate::debian::tools::UnpackedTools;
use crate::progress::StepMeter;
use crate::spec::BootPackages;

/// The packages of a build, their versions chosen.
pub(crate) struct ResolvedPackages {
    archive: AptArchive,
    lock: PackageLock,
    suite: String,
    named_tools: Vec<String>,
    /// The digest of the agent of the lock that was given, if it is not the one of this build.
    locked_agent: Option<Sha256>,
    /// Seconds since 1970 that every time in the image is set to.
    pub(crate) epoch: u64,
}

/// A root tree in the cache.
pub(crate) struct BootstrappedRoot {
    pub(crate) tar: PathBuf,
    pub(crate) said: String,
    pub(crate) epoch: u64,
}

/// Chooses every package's version: the newest, or those of the lock.
pub(crate) fn resolve_packages(
    site: &BuildContext<'_>,
    cache: &Path,
) -> Result<ResolvedPackages, BuildError> {
    let plan = site.plan;
    let mirror = Sha256::digest_of(plan.source.mirror.as_bytes()).to_string();
    // Mirrors differ in what they have at a moment, so each has lists of its own.
    let folder = cache.join("apt").join(format!("{}-{}", plan.source.suite, &mirror[..12]));
    let archive = AptArchive::open_archive(&folder, plan.source.clone())?;
    let agent = &plan.facts.initagent;
    let agent = fs::read(agent).map_err(|source| BuildError::Prepare { path: agent.clone(), source })?;
    let agent = Sha256::digest_of(&agent);
    let mut lock = if let Some(path) = &plan.facts.lock {
        read_lock(path)?
    } else {
        archive.update_index()?;
        PackageLock::new(
            plan.facts.epoch.map_or_else(|| archive.last_change(), Ok)?,
            archive.resolve_versions(&plan.root_packages)?,
            archive.resolve_versions(&plan.tool_packages)?,
        )
    };
    // SOURCE_DATE_EPOCH goes before the lock: <https://reproducible-builds.org/specs/source-date-epoch/>.
    let epoch = plan.facts.epoch.unwrap_or(lock.epoch);
    let locked_agent = lock.initagent.replace(agent).filter(|locked| *locked != agent);
    let named_tools = plan.tool_packages.clone();
    Ok(ResolvedPackages { archive, lock, suite: plan.source.suite.clone(), named_tools, locked_agent, epoch })
}

fn read_lock(path: &Path) -> Result<PackageLock, BuildError> {
    let text =
        fs::read_to_string(path).map_err(|source| BuildError::LockRead { path: path.to_owned(), source })?;
    PackageLock::parse_lock(&text).map_err(|source| BuildError::LockText { path: path.to_owned(), source })
}

impl ResolvedPackages {
    /// What to say when the image will not be the one that the lock was written for.
    pub(crate) fn other_agent(&self) -> Option<String> {
        let locked = self.locked_agent?;
        let ours = self.agent_digest()?;
        Some(format!(
            "the lock is of another initagent ({locked}) than this one ({ours}): the image will differ"
        ))
    }

    /// The digest of the agent.
    pub(crate) fn agent_digest(&self) -> Option<Sha256> {
        self.lock.initagent
    }

    pub(crate) fn root_packages(&self) -> &[LockedPackage] {
        self.lock.packages_of(LockSection::Root)
    }

    pub(crate) fn tool_packages(&self) -> &[LockedPackage] {
        self.lock.packages_of(LockSection::Tools)
    }

    /// The tools whose files come onto the disk. Debian's shim is spread over several packages.
    pub(crate) fn boot_loaders(&self, boot: &BootPackages) -> Vec<&LockedPackage> {
        let named = [&boot.shim, &boot.grub_efi, &boot.grub_bios];
        let is_one =
            |package: &&LockedPackage| named.contains(&&package.name) || package.name.starts_with("shim");
        self.tool_packages().iter().filter(is_one).collect()
    }

    /// The lock alone.
    pub(crate) fn into_lock(self) -> PackageLock {
        self.lock
    }

    pub(crate) fn lock_text(&self) -> String {
        self.lock.to_string()
    }

    /// Fetches what the cache has not, and checks every digest against the lock.
    pub(crate) fn download_packages(&self) -> Result<String, BuildError> {
        let all = || self.root_packages().iter().chain(self.tool_packages());
        let missing: Vec<LockedPackage> = all().filter(|package| !self.is_cached(package)).cloned().collect();
        if !missing.is_empty() {
            // The index is only fetched where something is missing: with a full cache a build needs no
            // network.
            if !self.archive.has_versions(&missing)? {
                self.archive.update_index()?;
            }
            let gone = self.archive.missing_versions(&missing)?;
            if !gone.is_empty() {
                return Err(BuildError::Gone { gone });
            }
            self.archive.download_packages(&missing)?;
            let gone: Vec<LockedPackage> =
                missing.iter().filter(|package| !self.is_cached(package)).cloned().collect();
            if !gone.is_empty() {
                return Err(BuildError::Gone { gone });
            }
        }
        let bytes: u64 = missing.iter().map(|package| package.size).sum();
        Ok(format!("{} of {} packages fetched, {} MB", missing.len(), all().count(), bytes / 1_000_000))
    }

    fn is_cached(&self, package: &LockedPackage) -> bool {
        let path = self.archive.package_path(package);
        // The length first: it costs nothing, and the digest of a large package does.
        fs::metadata(&path).is_ok_and(|found| found.len() == package.size)
            && fs::read(&path).is_ok_and(|bytes| Sha256::digest_of(&bytes) == package.sha256)
    }

    /// The root tree of these packages, made or found.
    pub(crate) fn bootstrap_root(
        &self,
        site: &BuildContext<'_>,
        cache: &Path,
        meter: &StepMeter,
    ) -> Result<BootstrappedRoot, BuildError> {
        let bootstrap =
            BootstrapInputs { suite: &self.suite, packages: self.root_packages(), epoch: self.epoch };
        let folder = cache.join("roots");
        // 96 bits of the digest: short enough for a name, and no accident will meet two.
        let tar = folder.join(format!("{}.tar", &bootstrap.cache_key()[..24]));
        let found = tar.exists();
        if !found {
            let prepare = |source| BuildError::Prepare { path: folder.clone(), source };
            fs::create_dir_all(&folder).map_err(prepare)?;
            let partial = tempfile::NamedTempFile::new_in(&folder).map_err(prepare)?;
            // Asking apt takes longer than all else does here when the tree is there.
            let stanzas = self.archive.package_stanzas(self.root_packages())?;
            let deb = |package: &LockedPackage| self.archive.package_path(package);
            bootstrap.write_tree(&stanzas, partial.as_file(), deb, site.interrupt, meter)?;
            // rename(2): a build that is interrupted leaves no half tree under a name that another one
            // believes.
            partial.persist(&tar).map_err(|error| prepare(error.error))?;
            forget_older(&folder, &tar);
        }
        let said = if found { "found in the cache" } else { "made by mmdebstrap" };
        Ok(BootstrappedRoot { tar, said: said.to_owned(), epoch: self.epoch })
    }

    /// The unpacked tools, made or found.
    pub(crate) fn unpack_tools(&self, cache: &Path) -> Result<UnpackedTools, BuildError> {
        let digests: Vec<String> =
            self.tool_packages().iter().map(|package| package.sha256.to_string()).collect();
        // The number goes up when this program unpacks differently, so that old folders are not found any
        // more.
        let key = format!("tools 1 {} {}", self.named_tools.join(" "), digests.join(" "));
        let key = Sha256::digest_of(key.as_bytes()).to_string();
        let folder = cache.join("tools");
        let directory = folder.join(&key[..24]);
        if !directory.exists() {
            let prepare = |source| BuildError::Prepare { path: folder.clone(), source };
            fs::create_dir_all(&folder).map_err(prepare)?;
            let partial = tempfile::tempdir_in(&folder).map_err(prepare)?;
            let tools = UnpackedTools::in_directory(partial.path().to_owned());
            let wanted = |package: &&LockedPackage| {
                self.named_tools.contains(&package.name)
                    // The tools' own libraries. What else apt would install beside them is for a running
                    // system.
                    || package.name.starts_with("lib")
                    || package.name.starts_with("shim")
            };
            for package in self.tool_packages().iter().filter(wanted) {
                tools.unpack_package(&self.archive.package_path(package))?;
            }
            fs::rename(partial.keep(), &directory).map_err(prepare)?;
        }
        Ok(UnpackedTools::in_directory(directory))
    }
}

/// Root trees are large: the newest three are kept.
fn forget_older(folder: &Path, newest: &Path) {
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut trees: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != newest && path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    trees.sort_by_key(modified);
    for old in trees.iter().rev().skip(2) {
        // One that stays only costs room.
        let _ = fs::remove_file(old);
    }
}

/// Opens a cached tree.
pub(crate) fn open_tree(path: &Path) -> io::Result<crate::rootfs::tree::RootTree> {
    File::open(path)?;
    crate::rootfs::tree::RootTree::from_tar(path.to_owned())
}
