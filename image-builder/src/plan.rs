//! What a build will do, decided before anything is done.
//!
//! Pure: a spec and facts about the host in, a [`BuildPlan`] out. It prints as `--dry-run`; `apply`
//! carries it out and decides nothing.

use std::fmt;
use std::path::PathBuf;

use image_format::bytes::Bytes;
use image_format::layout::{DiskLayout, PartitionSizes, PlanLayoutError};
use uuid::Uuid;

use crate::debian::archive::ArchiveSource;
use crate::spec::ImageSpec;
use crate::step::BuildStep;

/// Root of all identifiers of this project's images.
const NAMESPACE: Uuid = uuid::uuid!("6f5f3b5e-7d0c-4b53-9d0f-2b6e0c1c8a11");

/// What a build without a security suite says: a mirror that is named by hand comes without one.
pub(crate) const NO_SECURITY_FIXES: &str = "no security fixes go into this image, since the mirror that was named is \
     the only one: give `security_mirror:` in the spec, such as http://security.debian.org/debian-security";

/// Packages that lend the build a program: mke2fs, what lets it read a tar, and grub-mkimage.
// mke2fs loads libarchive only when it is given a tar, so no dependency of its package brings it.
const TOOL_PACKAGES: [&str; 3] = ["e2fsprogs", "grub-common", "libarchive13t64"];

/// What is known of the host and the wishes of the command line.
#[derive(Debug, Clone)]
pub(crate) struct BuildFacts {
    /// The Debian mirror of the host, if it has one.
    pub(crate) mirror: Option<String>,
    pub(crate) security_mirror: Option<String>,
    /// The keys that sign Debian's archive.
    pub(crate) keyring: PathBuf,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970, if it is set.
    pub(crate) epoch: Option<u64>,
    pub(crate) signing: SigningKey,
    /// Root metadata that the image is to trust for its updates.
    pub(crate) update_root: Option<PathBuf>,
    /// The static program that becomes the initramfs's init and the image's agent.
    pub(crate) initagent: PathBuf,
    /// A lock that must be followed.
    pub(crate) lock: Option<PathBuf>,
    pub(crate) cache: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) threads: usize,
}

/// Who signs the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SigningKey {
    /// A key of the cache, made when there is none: good for trying things out only.
    Development,
    /// The secret keys in these files.
    Keys(Vec<PathBuf>),
}

/// A decided build.
#[derive(Debug, Clone)]
pub(crate) struct BuildPlan {
    pub(crate) spec: ImageSpec,
    pub(crate) source: ArchiveSource,
    /// What is installed to make the root.
    pub(crate) root_packages: Vec<String>,
    /// What is unpacked for the build itself.
    pub(crate) tool_packages: Vec<String>,
    pub(crate) facts: BuildFacts,
}

/// Decides a build.
pub(crate) fn plan_build(spec: ImageSpec, facts: BuildFacts) -> Result<BuildPlan, PlanError> {
    let mirror = spec.debian.mirror.clone().or_else(|| facts.mirror.clone()).ok_or(PlanError::NoMirror)?;
    // A mirror given by hand says nothing about security fixes elsewhere.
    let host_security = if spec.debian.mirror.is_none() { facts.security_mirror.clone() } else { None };
    let source = ArchiveSource {
        mirror,
        security_mirror: spec.debian.security_mirror.clone().or(host_security),
        suite: spec.debian.suite.clone(),
        components: spec.debian.components.clone(),
        keyring: facts.keyring.clone(),
    };
    let mut root_packages = spec.packages.clone();
    // What dpkg itself takes for granted while it configures the others; unneeded ones are left out later.
    root_packages.extend(["?essential", "apt"].map(str::to_owned));
    let boot = &spec.boot;
    let mut tool_packages: Vec<String> = TOOL_PACKAGES.map(str::to_owned).to_vec();
    tool_packages.extend([boot.shim.clone(), boot.grub_efi.clone(), boot.grub_bios.clone()]);
    // Tried here, so that a disk that cannot be laid out is refused before packages are fetched.
    plan_disk(&spec, Uuid::nil())?;
    Ok(BuildPlan { spec, source, root_packages, tool_packages, facts })
}

/// The disk of a spec.
pub(crate) fn plan_disk(spec: &ImageSpec, disk: Uuid) -> Result<DiskLayout, PlanLayoutError> {
    DiskLayout::plan_layout(disk, PartitionSizes { root: spec.partitions.root, state: spec.partitions.state })
}

/// The disk's GUID: derived from all that makes the image, so that it repeats.
pub(crate) fn disk_guid(spec: &ImageSpec, lock: &str, epoch: u64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("disk {} {} {epoch}\n{lock}", spec.name, spec.version).as_bytes())
}

/// The identifier of the root's file system: the same for all releases of an image. ext4 begins the checksum of each
/// folder and each inode with it, so that another one would change every such block, and an update would carry them.
/// Nothing looks for a root by it: slots are partitions.
pub(crate) fn root_uuid(spec: &ImageSpec) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("root file system {}", spec.name).as_bytes())
}

impl fmt::Display for BuildPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, source, facts, .. } = self;
        writeln!(f, "image      {} {} ({})", spec.name, spec.version, spec.channel)?;
        write!(f, "packages   {} {} from {}", source.suite, source.components.join(" "), source.mirror)?;
        match &source.security_mirror {
            Some(mirror) => writeln!(f, ", security fixes from {mirror}")?,
            None => writeln!(f, "\nWARNING    {NO_SECURITY_FIXES}")?,
        }
        match &facts.lock {
            Some(lock) => writeln!(f, "versions   exactly those of {}", lock.display())?,
            None => writeln!(f, "versions   the newest the mirror has")?,
        }
        writeln!(f, "install    {}", self.root_packages.join(" "))?;
        writeln!(f, "leave out  {}", spec.drop.join(" "))?;
        writeln!(f, "tools      {}", self.tool_packages.join(" "))?;
        for overlay in &spec.overlays {
            writeln!(f, "overlay    {}", overlay.display())?;
        }
        writeln!(f, "start      {}", spec.units.join(" "))?;
        match &facts.signing {
            SigningKey::Development => writeln!(f, "signed     with a development key of the cache")?,
            SigningKey::Keys(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                writeln!(f, "signed     with {}", paths.join(", "))?;
            }
        }
        if let Some(path) = &facts.update_root {
            writeln!(f, "updates    as {} allows", path.display())?;
        }
        let layout = plan_disk(spec, Uuid::nil()).map_err(|_| fmt::Error)?;
        writeln!(f, "disk       {}", layout.disk_size())?;
        for placed in layout.partitions() {
            writeln!(
                f,
                "  {} {:<8} sector {:>8}  {}",
                placed.partition.number,
                placed.partition.label,
                placed.first_lba,
                placed.byte_size()
            )?;
        }
        for (number, step) in (1..).zip(BuildStep::ALL) {
            writeln!(f, "{number:>2}. {:<10} {}", step.step_name(), step.step_sentence())?;
        }
        writeln!(f, "into       {}", facts.output.display())
    }
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(
        "no Debian mirror is known: apt on this host has none configured. Name one, for example from \
         https://www.debian.org/mirror/list, with --mirror URL or `mirror:` in the spec"
    )]
    NoMirror,
    #[error("the partitions do not fit")]
    Layout(#[from] PlanLayoutError),
}

/// The smallest slot for a root of that size, and what is recommended: twice its content.
pub(crate) fn slot_sizes(content: Bytes) -> (Bytes, Bytes) {
    let round = |bytes: u64| Bytes::new(bytes.next_multiple_of(1 << 20));
    // Slots are never resized, and each release must fit into the slot of the first.
    (round(content.get()), round(content.get() * 2))
}
