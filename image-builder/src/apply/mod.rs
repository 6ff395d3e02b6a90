//! Carries out a plan: every function is a step, every value says what the step before it made.
//!
//! Nothing is decided here. All of it is written to a folder beside the output that goes away with
//! its owner; only the last step puts finished files in their place.

mod boot;
mod packages;
mod publish;
mod root;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::layout::{DiskLayout, PartitionRole, PlanLayoutError};
use image_format::manifest::ManifestError;
use image_format::release::root::{Role, TrustRootError, TrustedRoot};
use image_format::signed::{PublicKey, SecretKey};
use image_format::slot::Slot;
use image_format::verity::BuildTreeError;
use uuid::Uuid;

use crate::boot::core_image::CoreImageError;
use crate::cache::{self, CacheError};
use crate::debian::archive::ArchiveError;
use crate::debian::bootstrap::BootstrapError;
use crate::debian::lock::{LockedPackage, PackageLock, ParseLockError};
use crate::debian::tools::{UnpackError, UnpackedTools};
use crate::disk::DiskImage;
use crate::initramfs::modules::SelectError;
use crate::keys::{self, KeyError};
use crate::plan::{self, BuildPlan, SigningKey};
use crate::process::{InterruptFlag, Interrupted, RunError};
use crate::progress::BuildProgress;
use crate::rootfs::compose::KernelError;
use crate::rootfs::inner::UncompressError;
use crate::rootfs::overlay::OverlayError;
use crate::step::BuildStep;

/// What a build made.
#[derive(Debug, serde::Serialize)]
pub(crate) struct BuiltImage {
    pub(crate) disk: PathBuf,
    pub(crate) version: String,
    pub(crate) development: bool,
    /// Bytes of the root file system, of which a slot must hold at least these.
    pub(crate) root_bytes: u64,
    pub(crate) slot_bytes: u64,
    pub(crate) initrd_bytes: u64,
    pub(crate) packages: usize,
    /// The most memory that this program, or one that it ran, had at once.
    pub(crate) peak_memory_bytes: u64,
    pub(crate) files: Vec<PathBuf>,
}

impl BuiltImage {
    /// What it is, for people.
    pub(crate) fn describe_image(&self, name: &str, seconds: f64) -> String {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let Self { disk, version, root_bytes, slot_bytes, initrd_bytes, packages, peak_memory_bytes, .. } =
            self;
        format!(
            "{name} {version} in {seconds:.1} s: {}\n  \
               packages   {packages}; peak memory of the build {} MB\n  \
               root       {} MB in slots of {} MB; initramfs {} kB\n  \
               beside it  manifest, packages.lock, sbom.spdx.json, sizes.txt",
            disk.display(),
            megabytes(*peak_memory_bytes),
            megabytes(*root_bytes),
            megabytes(*slot_bytes),
            initrd_bytes / 1000
        )
    }
}

/// What every step may use.
pub(crate) struct BuildContext<'a> {
    pub(crate) plan: &'a BuildPlan,
    pub(crate) interrupt: &'a InterruptFlag,
    /// Goes away with its owner.
    pub(crate) workspace: &'a Path,
}

/// Who signs, and who may sign what the image will accept.
pub(crate) struct ImageSigner {
    pub(crate) secrets: Vec<SecretKey>,
    pub(crate) trusted: Vec<PublicKey>,
    pub(crate) development: bool,
    /// The root metadata by which the machine follows its channel, if it is to follow one.
    pub(crate) update_root: Option<TrustedRoot>,
}

/// Builds an image.
pub(crate) fn build_image(
    plan: &BuildPlan,
    interrupt: &InterruptFlag,
    progress: &mut BuildProgress,
) -> Result<BuiltImage, BuildError> {
    let output = &plan.facts.output;
    let prepare = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Prepare { path, source }
    };
    fs::create_dir_all(output).map_err(prepare(output))?;
    let cache = cache::open_cache(&plan.facts.cache)?;
    let workspace =
        // Beside the output, since rename(2) works within one file system only.
        tempfile::Builder::new().prefix(".building-").tempdir_in(output).map_err(prepare(output))?;
    let site = BuildContext { plan, interrupt, workspace: workspace.path() };
    let signer = choose_signer(plan, &cache)?;

    progress.begin_step(BuildStep::Resolve);
    if plan.source.security_mirror.is_none() {
        progress.show_warning(plan::NO_SECURITY_FIXES);
    }
    let packages = packages::resolve_packages(&site, &cache)?;
    progress.note_result(&format!(
        "{} packages for the root, {} for the build, of {}",
        packages.root_packages().len(),
        packages.tool_packages().len(),
        jiff::Timestamp::from_second(i64::try_from(packages.epoch).unwrap_or_default()).unwrap_or_default()
    ));
    if let Some(warning) = packages.other_agent() {
        progress.show_warning(&warning);
    }
    progress.begin_step(BuildStep::Download);
    progress.note_result(&packages.download_packages()?);
    // The two take turns at the two cores: one is decompressing, the other mostly one process at a time.
    progress.begin_step(BuildStep::Bootstrap);
    let meter = progress.step_meter();
    let (bootstrapped, tools) = std::thread::scope(|scope| {
        let tools = scope.spawn(|| packages.unpack_tools(&cache));
        (packages.bootstrap_root(&site, &cache, &meter), tools.join())
    });
    let (bootstrapped, tools) = (bootstrapped?, tools.unwrap_or(Err(BuildError::Panicked))?);
    progress.note_result(&bootstrapped.said);
    progress.begin_step(BuildStep::Compose);
    let mut composed = root::compose_root(&site, &bootstrapped, &signer)?;
    progress.begin_step(BuildStep::Initramfs);
    let initrd = root::add_initramfs(&site, &mut composed, &signer)?;
    progress.note_result(&format!("{} bytes", initrd.size));

    // The disk's GUID follows from it, and everything random in the image from that GUID.
    let lock = packages.lock_text();
    let disk_guid = plan::disk_guid(&plan.spec, &lock, packages.epoch);
    let layout = plan::plan_disk(&plan.spec, disk_guid)?;
    let disk_path = site.workspace.join("disk.raw");
    let disk = DiskImage::create_image(&disk_path, layout.disk_size()).map_err(prepare(&disk_path))?;
    let target = DiskTarget { disk: &disk, layout: &layout, disk_guid, tools: &tools, epoch: packages.epoch };

    progress.begin_step(BuildStep::RootFileSystem);
    let extent = root::write_file_system(&site, &target, &composed, &progress.step_meter())?;
    progress.note_result(&format!("{} in a slot of {}", extent.size, plan.spec.partitions.root));
    progress.begin_step(BuildStep::Verity);
    let sealed = root::seal_slot(&site, &target, extent, &composed, &initrd, &signer)?;
    progress.begin_step(BuildStep::BootLoaders);
    boot::write(&site, &target)?;
    progress.begin_step(BuildStep::State);
    boot::write_state(&site, &target)?;
    progress.begin_step(BuildStep::Reports);
    let reports = publish::write_reports(&site, &composed, &packages, &sealed)?;
    // The last moment at which nothing of the output has been touched.
    interrupt.check_interrupted()?;
    progress.begin_step(BuildStep::Publish);
    let built = publish::publish_image(&site, &target, &reports, &sealed, &composed, &initrd)?;
    progress.finish_step();
    Ok(built)
}

/// Chooses every package's version and builds nothing: the lock that a build now would have.
pub(crate) fn resolve_lock(plan: &BuildPlan, interrupt: &InterruptFlag) -> Result<PackageLock, BuildError> {
    let cache = cache::open_cache(&plan.facts.cache)?;
    let site = BuildContext { plan, interrupt, workspace: &cache };
    Ok(packages::resolve_packages(&site, &cache)?.into_lock())
}

/// The slot that a fresh image boots.
pub(crate) const FIRST: PartitionRole = PartitionRole::Root(Slot::A);

/// Where the image is written, and with what.
pub(crate) struct DiskTarget<'a> {
    pub(crate) disk: &'a DiskImage,
    pub(crate) layout: &'a DiskLayout,
    pub(crate) disk_guid: Uuid,
    pub(crate) tools: &'a UnpackedTools,
    pub(crate) epoch: u64,
}

impl DiskTarget<'_> {
    /// An identifier of this disk's, by its purpose.
    pub(crate) fn derive_identifier(&self, purpose: &str) -> Uuid {
        Uuid::new_v5(&self.disk_guid, purpose.as_bytes())
    }

    /// Where a partition begins.
    pub(crate) fn partition_offset(&self, role: PartitionRole) -> Bytes {
        self.layout.partition_of(role).byte_offset()
    }
}

fn choose_signer(plan: &BuildPlan, cache: &Path) -> Result<ImageSigner, BuildError> {
    let (secrets, development) = match &plan.facts.signing {
        SigningKey::Keys(paths) => {
            (paths.iter().map(|path| keys::read_secret(path)).collect::<Result<Vec<_>, _>>()?, false)
        }
        SigningKey::Development => (vec![development_key(cache)?], true),
    };
    let comment = if development { "development" } else { "release" };
    let mut trusted: Vec<PublicKey> = secrets.iter().map(|secret| secret.public_key(comment)).collect();
    for path in &plan.spec.release_keys {
        trusted.push(keys::read_public(path)?);
    }
    let update_root =
        plan.facts.update_root.as_deref().map(|path| read_update_root(path, &secrets)).transpose()?;
    // This is how the machines learn of a new release key: its first release brings it in the initramfs.
    let of_root = update_root
        .iter()
        .map(|root| root.metadata().role_keys(Role::Release).known_keys().unwrap_or_default());
    trusted.extend(of_root.flatten());
    // Their files are in the image, so the order in which keys were named must not change it.
    trusted.sort_by_key(PublicKey::key_id);
    trusted.dedup_by_key(|key| key.key_id());
    Ok(ImageSigner { secrets, trusted, development, update_root })
}

/// A machine of this image follows the root to releases that its keys signed, so this image is to be one.
fn read_update_root(path: &Path, secrets: &[SecretKey]) -> Result<TrustedRoot, BuildError> {
    let envelope = fs::read(path).map_err(|source| BuildError::Prepare { path: path.to_owned(), source })?;
    let root = TrustedRoot::anchor_chain(&envelope)
        .map_err(|source| BuildError::UpdateRoot { path: path.to_owned(), source })?;
    let known = root.metadata().role_keys(Role::Release).known_keys().unwrap_or_default();
    let may_sign =
        |secret: &SecretKey| known.iter().any(|key| key.key_id() == secret.public_key("").key_id());
    if secrets.iter().any(may_sign) {
        Ok(root)
    } else {
        Err(BuildError::NotTrusted { path: path.to_owned() })
    }
}

/// The key of this cache's development builds: kept, so that one of them can update another.
fn development_key(cache: &Path) -> Result<SecretKey, KeyError> {
    let folder = cache.join("development-key");
    if !folder.join("release.key").exists() {
        keys::create_pair(&folder, "release", "development")?;
    }
    keys::read_secret(&folder.join("release.key"))
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("cannot get the packages")]
    Archive(#[from] ArchiveError),
    #[error("cannot make the root tree")]
    Bootstrap(#[from] BootstrapError),
    #[error("cannot write {what}")]
    Bytes { what: &'static str, source: io::Error },
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("cannot compose the root: {what}")]
    Compose { what: &'static str, source: io::Error },
    #[error("cannot make GRUB for BIOS")]
    CoreImage(#[from] CoreImageError),
    #[error("{what} failed")]
    FileSystem { what: &'static str, source: RunError },
    #[error(
        "the mirror no longer has {} of the locked packages ({}), and they are not in the cache: build without \
         --locked to take what it has now", gone.len(),
        gone.iter().map(LockedPackage::pinned_name).collect::<Vec<_>>().join(", ")
    )]
    Gone { gone: Vec<LockedPackage> },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error("cannot use a key")]
    Key(#[from] KeyError),
    #[error("cannot choose the kernel")]
    Kernel(#[from] KernelError),
    #[error("the partitions do not fit")]
    Layout(#[from] PlanLayoutError),
    #[error("cannot read the lock {path}")]
    LockRead { path: PathBuf, source: io::Error },
    #[error("cannot use the lock {path}")]
    LockText { path: PathBuf, source: ParseLockError },
    #[error("cannot sign a manifest")]
    Manifest(#[from] ManifestError),
    #[error("the packages {} are listed, but not installed: a virtual name?", names.join(", "))]
    NotInstalled { names: Vec<String> },
    #[error("cannot lay an overlay over the root")]
    Overlay(#[from] OverlayError),
    #[error("none of the keys given with --key may sign releases, says the root metadata {path}")]
    NotTrusted { path: PathBuf },
    #[error("a worker of the build panicked; please report it")]
    Panicked,
    #[error("cannot prepare {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot choose the initramfs's modules")]
    Select(#[from] SelectError),
    #[error(
        "the root needs {needed} with its hashes and manifest, but `partitions.root` gives a slot {given}; \
         twice the content leaves room for updates: {recommended}"
    )]
    SlotTooSmall { needed: Bytes, given: Bytes, recommended: Bytes },
    #[error(transparent)]
    Uncompress(#[from] UncompressError),
    #[error("the units {} are to be started, but the root has none of these names", names.join(", "))]
    Units { names: Vec<String> },
    #[error("cannot use the root metadata {path}, which machines are to trust")]
    UpdateRoot { path: PathBuf, source: TrustRootError },
    #[error("cannot use a package")]
    Unpack(#[from] UnpackError),
    #[error("cannot hash the root")]
    Verity(#[from] BuildTreeError),
}

#[cfg(test)]
mod tests;
