//! From packages to a sealed slot: composes the root, packs its initramfs, writes it as ext4, hashes
//! it and signs what it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};

use image_format::bytes::Bytes;
use image_format::command_line::CommandLine;
use image_format::digest::Sha256;
use image_format::manifest::{BootFile, FORMAT, Manifest, RootPlacement, Salt};
use image_format::signed::Signed;
use image_format::{trailer, verity};

use super::packages::{BootstrappedRoot, open_tree};
use super::{BuildContext, BuildError, DiskTarget, FIRST, ImageSigner};
use crate::debian::status;
use crate::initramfs::{self, modules};
use crate::keys;
use crate::plan;
use crate::process;
use crate::progress::StepMeter;
use crate::rootfs::compose::{self, DpkgDatabase, KernelFiles};
use crate::rootfs::ext4::{self, FileSystemExtent};
use crate::rootfs::tree::{EntryKind, FileContent, RootTree, TreeEntry};
use crate::rootfs::{accounts, inner, overlay, units};
use crate::spec::ImageSpec;

/// A root as it will be.
pub(crate) struct ComposedRoot {
    pub(crate) tree: RootTree,
    pub(crate) kernel: KernelFiles,
    pub(crate) database: DpkgDatabase,
    /// Names of the packages whose files are in it.
    pub(crate) kept: BTreeSet<String>,
    epoch: u64,
}

/// A file of the root that the boot loader reads.
pub(crate) struct InitramfsFile {
    pub(crate) sha256: Sha256,
    pub(crate) size: usize,
}

/// A slot whose content is hashed and signed.
pub(crate) struct SealedSlot {
    pub(crate) manifest: Manifest,
    /// The signed manifest, as it stands at the end of the slot.
    pub(crate) envelope: Vec<u8>,
}

const KERNEL: &str = "boot/vmlinuz";
const INITRD: &str = "boot/initrd.img";

/// Composes the root from the bootstrapped tree.
pub(crate) fn compose_root(
    site: &BuildContext<'_>,
    bootstrapped: &BootstrappedRoot,
    signer: &ImageSigner,
) -> Result<ComposedRoot, BuildError> {
    let spec = &site.plan.spec;
    let what = |what| move |source| BuildError::Compose { what, source };
    let mut tree = open_tree(&bootstrapped.tar).map_err(what("reading the bootstrapped tree"))?;
    let mut database = DpkgDatabase::read(&tree).map_err(what("reading dpkg's database"))?;
    let dropped: BTreeSet<String> = spec.drop.iter().cloned().collect();
    let kept = status::needed_packages(&database.installed, &spec.packages, &dropped)
        .map_err(|names| BuildError::NotInstalled { names })?;

    // Only links that the packages broke are removed. Others lead to what a boot makes, such as /run.
    let before: BTreeSet<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    compose::keep_packages(&mut tree, &database, &kept);
    compose::remove_dangling_links(&mut tree, |path| before.contains(path));
    compose::remove_traces(&mut tree);
    let kernel = compose::settle_kernel(&mut tree)?;
    database.rename_paths(inner::uncompress_inner(&mut tree, &kernel.release)?);
    compose::move_var(&mut tree);
    // Before the overlays, so that an overlay may put another file in the place of one that is left out.
    for path in &spec.remove {
        tree.remove(path);
    }
    set_aside(&mut tree, &spec.set_aside).map_err(what("setting programs aside"))?;
    for directory in &spec.overlays {
        overlay::apply_overlay(&mut tree, directory)?;
    }
    accounts::add(&mut tree, &spec.accounts, bootstrapped.epoch).map_err(what("adding accounts"))?;
    // After the overlays, which may bring units.
    units::enable_only(&mut tree, &spec.units).map_err(|names| BuildError::Units { names })?;
    write_identity(&mut tree, spec, signer);
    add_programs(&mut tree, site).map_err(what("adding our programs"))?;
    let packages = package_list(&database, &kept);
    tree.insert("usr/lib/catamaran/packages", TreeEntry::file(packages.into_bytes(), 0o644));
    Ok(ComposedRoot { tree, kernel, database, kept, epoch: bootstrapped.epoch })
}

/// What makes it this image: its name, whom it trusts, and the places the host's own files had.
pub(super) fn write_identity(tree: &mut RootTree, spec: &ImageSpec, signer: &ImageSigner) {
    let ImageSpec { name, version, channel, .. } = spec;
    let release = format!(
        "NAME=\"Catamaran\"\nID=catamaran\nID_LIKE=\"coreos debian\"\nPRETTY_NAME=\"Catamaran {version} ({name})\"\n\
         VERSION=\"{version}\"\nVERSION_ID={version}\nVARIANT_ID={name}\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n\
         RELEASE_CHANNEL={channel}\n"
    );
    tree.insert("usr/lib/os-release", TreeEntry::file(release.into_bytes(), 0o644));
    // os-release(5): the file is in /usr/lib, and /etc has a relative link to it.
    tree.insert("etc/os-release", TreeEntry::symlink("../usr/lib/os-release"));
    tree.insert("etc/hostname", TreeEntry::file(*b"catamaran\n", 0o644));
    // Only until the initramfs gives the machine its own.
    // machine-id(5): the word for an image that has not booted yet.
    tree.insert("etc/machine-id", TreeEntry::file(*b"uninitialized\n", 0o444));
    // systemd-resolved.service(8): the link by which programs that read the file themselves ask the local
    // resolver.
    tree.insert("etc/resolv.conf", TreeEntry::symlink("../run/systemd/resolve/stub-resolv.conf"));
    tree.insert("boot/env", TreeEntry::file(environment_block(&spec.kernel.command_line), 0o644));
    if let Some(root) = &signer.update_root {
        // Inside the verified root: nothing that the manifest's root hash does not cover begins the chain of roots.
        tree.insert("usr/share/catamaran/root", TreeEntry::file(root.envelope().to_vec(), 0o644));
    }
    for key in &signer.trusted {
        let path = format!("usr/lib/catamaran/release-keys/{}", keys::file_name(key.key_id()));
        tree.insert(&path, TreeEntry::file(key.to_text().into_bytes(), 0o644));
    }
}

/// The kernel command line of the slot, as GRUB's `load_env` reads it: before anything verifies it, which is why
/// the manifest has it too.
fn environment_block(command_line: &CommandLine) -> Vec<u8> {
    let mut block = format!("# GRUB Environment Block\ncmdline={command_line}\n").into_bytes();
    // GRUB's environment block has this length, and `#` behind its text.
    block.resize(1024, b'#');
    block
}

/// Moves programs of packages to where nobody types them.
fn set_aside(tree: &mut RootTree, paths: &[String]) -> io::Result<()> {
    for path in paths {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the root has no {path}"));
        let entry = tree.get(path).cloned().ok_or_else(missing)?;
        let name = path.rsplit('/').next().unwrap_or(path);
        tree.remove(path);
        tree.insert(&format!("usr/libexec/{name}"), entry);
    }
    Ok(())
}

/// The agent, and the programs that the spec names, which are built beside it.
fn add_programs(tree: &mut RootTree, site: &BuildContext<'_>) -> io::Result<()> {
    let agent = &site.plan.facts.initagent;
    let others = site.plan.spec.programs.iter().map(|name| (name.as_str(), agent.with_file_name(name)));
    for (name, path) in [("initagent", agent.clone())].into_iter().chain(others) {
        let missing = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}; ci/build makes it", path.display()))
        };
        let size = fs::metadata(&path).map_err(missing)?.len();
        let content = FileContent::HostFile { path, size };
        tree.insert(&format!("usr/bin/{name}"), TreeEntry::new(EntryKind::File(content), 0o755));
    }
    Ok(())
}

/// A line for each package in the root: name, version, architecture.
fn package_list(database: &DpkgDatabase, kept: &BTreeSet<String>) -> String {
    let mut packages: Vec<_> =
        database.installed.iter().filter(|package| kept.contains(&package.name)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for package in packages {
        let _ = writeln!(text, "{} {} {}", package.name, package.version, package.architecture);
    }
    text
}

/// Packs the initramfs into the root.
pub(crate) fn add_initramfs(
    site: &BuildContext<'_>,
    composed: &mut ComposedRoot,
    signer: &ImageSigner,
) -> Result<InitramfsFile, BuildError> {
    let what = |source| BuildError::Bytes { what: "the initramfs", source };
    let ImageSpec { kernel, initramfs: wanted, .. } = &site.plan.spec;
    let policy = modules::Policy::from_command_line(&kernel.command_line);
    let selection = modules::select_modules(&composed.tree, &composed.kernel.release, wanted, policy)?;
    let initagent = fs::read(&site.plan.facts.initagent).map_err(what)?;
    let image = initramfs::build_initramfs(&initagent, &selection, &signer.trusted).map_err(what)?;
    let initrd = InitramfsFile { sha256: Sha256::digest_of(&image), size: image.len() };
    composed.tree.insert(INITRD, TreeEntry::file(image, 0o644));
    Ok(initrd)
}

/// Writes the root's file system into its slot.
pub(crate) fn write_file_system(
    site: &BuildContext<'_>,
    target: &DiskTarget<'_>,
    composed: &ComposedRoot,
    meter: &StepMeter,
) -> Result<FileSystemExtent, BuildError> {
    let extent = ext4::measure_tree(&composed.tree);
    check_room(site, extent)?;
    let uuid = plan::root_uuid(&site.plan.spec);
    let device = target.disk.path().display().to_string();
    // From a tar on its stdin. A folder of the host would need root for owners, and device nodes could not be
    // in it.
    let mut command = target.tools.tool_command("usr/sbin/mke2fs");
    command.env("SOURCE_DATE_EPOCH", composed.epoch.to_string()).args(ext4::mke2fs_arguments(
        extent,
        uuid,
        "ROOT",
        &device,
        target.partition_offset(FIRST),
    ));
    let feed = |input: &mut dyn Write| {
        let mut metered = MeteredPipe { input, meter, done: 0, total: extent.size.get() };
        composed.tree.write_tar(&mut metered, composed.epoch)
    };
    process::run_to_end(command, site.interrupt, feed)
        .map_err(|source| BuildError::FileSystem { what: "writing the root file system", source })?;
    Ok(extent)
}

/// A pipe that tells how much went through.
struct MeteredPipe<'a> {
    input: &'a mut dyn Write,
    meter: &'a StepMeter,
    done: u64,
    total: u64,
}

impl Write for MeteredPipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.input.write(bytes)?;
        self.done += written as u64;
        self.meter.set_progress(self.done, self.total);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

/// Before anything is written: the slot must hold the file system, its hashes and its manifest.
fn check_room(site: &BuildContext<'_>, extent: FileSystemExtent) -> Result<(), BuildError> {
    let needed = slot_bytes(extent.size);
    let given = site.plan.spec.partitions.root;
    if needed <= given {
        return Ok(());
    }
    let (needed, recommended) = plan::slot_sizes(needed);
    Err(BuildError::SlotTooSmall { needed, given, recommended })
}

fn slot_bytes(data: Bytes) -> Bytes {
    let block = verity::BLOCK_BYTES as u64;
    let tree = verity::tree_blocks(data.get() / block) * block;
    Bytes::new(data.get() + tree + trailer::TRAILER_BYTES as u64)
}

/// Hashes the slot, and writes its hashes and its signed manifest behind it.
pub(crate) fn seal_slot(
    site: &BuildContext<'_>,
    target: &DiskTarget<'_>,
    extent: FileSystemExtent,
    composed: &ComposedRoot,
    initrd: &InitramfsFile,
    signer: &ImageSigner,
) -> Result<SealedSlot, BuildError> {
    let what = |what| move |source| BuildError::Bytes { what, source };
    let start = target.partition_offset(FIRST);
    // Derived and not random, so that the same packages give the same image. It is no secret: the manifest
    // shows it.
    let salt = Sha256::digest_of(target.derive_identifier("verity salt").as_bytes());
    let data = target.disk.region_at(start);
    let tree = verity::build_tree(&data, extent.size.get(), salt.as_bytes(), site.plan.facts.threads)?;
    let at = |offset: u64| Bytes::new(start.get() + offset);
    target.disk.write_sparse(at(extent.size.get()), &tree.bytes).map_err(what("the hash tree"))?;

    let spec = &site.plan.spec;
    let kernel = composed.tree.read(KERNEL).map_err(what("the kernel's digest"))?;
    let manifest = Manifest {
        format: FORMAT,
        name: spec.name.clone(),
        version: spec.version.clone(),
        channel: spec.channel.clone(),
        architecture: "x86_64".to_owned(),
        built: target.epoch,
        development: signer.development,
        security_epoch: spec.security_epoch,
        root: RootPlacement {
            data_bytes: extent.size.get(),
            tree_offset: extent.size.get(),
            tree_bytes: tree.bytes.len() as u64,
            root_hash: tree.root_hash,
            salt: Salt::new(salt.as_bytes().to_vec())
                .map_err(|error| BuildError::Bytes { what: "the salt", source: io::Error::other(error) })?,
        },
        kernel: BootFile { path: format!("/{KERNEL}"), sha256: Sha256::digest_of(&kernel) },
        initrd: BootFile { path: format!("/{INITRD}"), sha256: initrd.sha256 },
        command_line: spec.kernel.command_line.clone(),
    };
    let envelope = Signed::<Manifest>::sign_payload(manifest.to_bytes()?, &signer.secrets).to_envelope();
    let bytes = trailer::encode_trailer(&envelope)
        .map_err(|error| BuildError::Bytes { what: "the manifest", source: io::Error::other(error) })?;
    let end = spec.partitions.root.get() - bytes.len() as u64;
    target.disk.write_sparse(at(end), &bytes).map_err(what("the manifest"))?;
    Ok(SealedSlot { manifest, envelope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_set_aside_is_found_where_nobody_types_it() {
        let mut tree = RootTree::default();
        tree.insert("usr/bin/etcdctl", TreeEntry::file(*b"program", 0o755));

        set_aside(&mut tree, &["usr/bin/etcdctl".to_owned()]).unwrap();

        assert!(tree.get("usr/bin/etcdctl").is_none());
        assert_eq!(tree.read("usr/libexec/etcdctl").unwrap(), b"program");
        let error = set_aside(&mut tree, &["usr/bin/etcdctl".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("usr/bin/etcdctl"), "{error}");
    }
}
