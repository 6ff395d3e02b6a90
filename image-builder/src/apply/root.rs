//! From packages to a sealed slot: composes the root, packs its initramfs, writes it as ext4, hashes
//! it and signs what it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};

use image_format::bytes::Bytes;
use image_format::command_line::CommandLine;
use image_format::digest::Sha256;
use image_format::manifest::{BootFile, FORMAT, Manifest, Root, Salt};
use image_format::signed::Signed;
use image_format::{trailer, verity};

use super::packages::{Bootstrapped, open_tree};
use super::{BuildError, FIRST, Signer, Site, Target};
use crate::debian::status;
use crate::initramfs::{self, modules};
use crate::keys;
use crate::plan;
use crate::process;
use crate::progress::Meter;
use crate::rootfs::compose::{self, Database, Kernel};
use crate::rootfs::ext4::{self, Extent};
use crate::rootfs::tree::{Content, Entry, Kind, Tree};
use crate::rootfs::{accounts, overlay, units};
use crate::spec::Spec;

/// A root as it will be.
pub(crate) struct Composed {
    pub(crate) tree: Tree,
    pub(crate) kernel: Kernel,
    pub(crate) database: Database,
    /// Names of the packages whose files are in it.
    pub(crate) kept: BTreeSet<String>,
    epoch: u64,
}

/// A file of the root that the boot loader reads.
pub(crate) struct Initrd {
    pub(crate) sha256: Sha256,
    pub(crate) size: usize,
}

/// A slot whose content is hashed and signed.
pub(crate) struct Sealed {
    pub(crate) manifest: Manifest,
    /// The signed manifest, as it stands at the end of the slot.
    pub(crate) envelope: Vec<u8>,
}

const KERNEL: &str = "boot/vmlinuz";
const INITRD: &str = "boot/initrd.img";

/// Composes the root from the bootstrapped tree.
pub(crate) fn compose(
    site: &Site<'_>,
    bootstrapped: &Bootstrapped,
    signer: &Signer,
) -> Result<Composed, BuildError> {
    let spec = &site.plan.spec;
    let what = |what| move |source| BuildError::Compose { what, source };
    let mut tree = open_tree(&bootstrapped.tar).map_err(what("reading the bootstrapped tree"))?;
    let database = Database::read(&tree).map_err(what("reading dpkg's database"))?;
    let dropped: BTreeSet<String> = spec.drop.iter().cloned().collect();
    let kept = status::needed(&database.installed, &spec.packages, &dropped)
        .map_err(|names| BuildError::NotInstalled { names })?;

    let before: BTreeSet<String> = tree.iter().map(|(path, _)| path.to_owned()).collect();
    compose::keep_packages(&mut tree, &database, &kept);
    compose::remove_dangling_links(&mut tree, |path| before.contains(path));
    compose::remove_traces(&mut tree);
    let kernel = compose::settle_kernel(&mut tree)?;
    compose::move_var(&mut tree);
    for path in &spec.remove {
        tree.remove(path);
    }
    for directory in &spec.overlays {
        overlay::apply(&mut tree, directory)?;
    }
    accounts::add(&mut tree, &spec.accounts, bootstrapped.epoch).map_err(what("adding accounts"))?;
    units::enable_only(&mut tree, &spec.units).map_err(|names| BuildError::Units { names })?;
    identify(&mut tree, spec, signer);
    add_agent(&mut tree, site).map_err(what("adding initagent"))?;
    let packages = package_list(&database, &kept);
    tree.insert("usr/lib/catamaran/packages", Entry::file(packages.into_bytes(), 0o644));
    Ok(Composed { tree, kernel, database, kept, epoch: bootstrapped.epoch })
}

/// What makes it this image: its name, whom it trusts, and the places the host's own files had.
fn identify(tree: &mut Tree, spec: &Spec, signer: &Signer) {
    let Spec { name, version, channel, .. } = spec;
    let release = format!(
        "NAME=\"Catamaran\"\nID=catamaran\nID_LIKE=\"coreos debian\"\nPRETTY_NAME=\"Catamaran {version} ({name})\"\n\
         VERSION=\"{version}\"\nVERSION_ID={version}\nVARIANT_ID={name}\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n\
         RELEASE_CHANNEL={channel}\n"
    );
    tree.insert("usr/lib/os-release", Entry::file(release.into_bytes(), 0o644));
    tree.insert("etc/os-release", Entry::symlink("../usr/lib/os-release"));
    tree.insert("etc/hostname", Entry::file(*b"catamaran\n", 0o644));
    // Only until the initramfs gives the machine its own.
    tree.insert("etc/machine-id", Entry::file(*b"uninitialized\n", 0o444));
    tree.insert("etc/resolv.conf", Entry::symlink("../run/systemd/resolve/stub-resolv.conf"));
    tree.insert("boot/env", Entry::file(environment_block(&spec.kernel.command_line), 0o644));
    for key in &signer.trusted {
        let path = format!("usr/lib/catamaran/release-keys/{}", keys::file_name(key.id()));
        tree.insert(&path, Entry::file(key.to_text().into_bytes(), 0o644));
    }
}

/// The kernel command line of the slot, as GRUB's `load_env` reads it: before anything verifies it, which is why
/// the manifest has it too.
fn environment_block(command_line: &CommandLine) -> Vec<u8> {
    let mut block = format!("# GRUB Environment Block\ncmdline={command_line}\n").into_bytes();
    block.resize(1024, b'#');
    block
}

fn add_agent(tree: &mut Tree, site: &Site<'_>) -> io::Result<()> {
    let path = &site.plan.facts.initagent;
    let content = Content::HostFile { path: path.clone(), size: fs::metadata(path)?.len() };
    tree.insert("usr/bin/initagent", Entry::new(Kind::File(content), 0o755));
    Ok(())
}

/// A line for each package in the root: name, version, architecture.
fn package_list(database: &Database, kept: &BTreeSet<String>) -> String {
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
    site: &Site<'_>,
    composed: &mut Composed,
    signer: &Signer,
) -> Result<Initrd, BuildError> {
    let what = |source| BuildError::Bytes { what: "the initramfs", source };
    let Spec { kernel, initramfs: wanted, .. } = &site.plan.spec;
    let policy = modules::Policy::of(&kernel.command_line);
    let selection = modules::select(&composed.tree, &composed.kernel.release, wanted, policy)?;
    let initagent = fs::read(&site.plan.facts.initagent).map_err(what)?;
    let image = initramfs::build(&initagent, &selection, &signer.trusted).map_err(what)?;
    let initrd = Initrd { sha256: Sha256::of(&image), size: image.len() };
    composed.tree.insert(INITRD, Entry::file(image, 0o644));
    Ok(initrd)
}

/// Writes the root's file system into its slot.
pub(crate) fn write_file_system(
    site: &Site<'_>,
    target: &Target<'_>,
    composed: &Composed,
    meter: &Meter,
) -> Result<Extent, BuildError> {
    let extent = ext4::measure(&composed.tree);
    check_room(site, extent)?;
    let uuid = target.identifier("root file system");
    let device = target.disk.path().display().to_string();
    let mut command = target.tools.command("usr/sbin/mke2fs");
    command.env("SOURCE_DATE_EPOCH", composed.epoch.to_string()).args(ext4::arguments(
        extent,
        uuid,
        "ROOT",
        &device,
        target.offset(FIRST),
    ));
    let feed = |input: &mut dyn Write| {
        let mut metered = Metered { input, meter, done: 0, total: extent.size.get() };
        composed.tree.write_tar(&mut metered, composed.epoch)
    };
    process::run(command, site.interrupt, feed)
        .map_err(|source| BuildError::FileSystem { what: "writing the root file system", source })?;
    Ok(extent)
}

/// A pipe that tells how much went through.
struct Metered<'a> {
    input: &'a mut dyn Write,
    meter: &'a Meter,
    done: u64,
    total: u64,
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.input.write(bytes)?;
        self.done += written as u64;
        self.meter.set(self.done, self.total);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

/// Before anything is written: the slot must hold the file system, its hashes and its manifest.
fn check_room(site: &Site<'_>, extent: Extent) -> Result<(), BuildError> {
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
pub(crate) fn seal(
    site: &Site<'_>,
    target: &Target<'_>,
    extent: Extent,
    composed: &Composed,
    initrd: &Initrd,
    signer: &Signer,
) -> Result<Sealed, BuildError> {
    let what = |what| move |source| BuildError::Bytes { what, source };
    let start = target.offset(FIRST);
    let salt = Sha256::of(target.identifier("verity salt").as_bytes());
    let data = target.disk.region(start);
    let tree = verity::build(&data, extent.size.get(), salt.as_bytes(), site.plan.facts.threads)?;
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
        root: Root {
            data_bytes: extent.size.get(),
            tree_offset: extent.size.get(),
            tree_bytes: tree.bytes.len() as u64,
            root_hash: tree.root_hash,
            salt: Salt::new(salt.as_bytes().to_vec())
                .map_err(|error| BuildError::Bytes { what: "the salt", source: io::Error::other(error) })?,
        },
        kernel: BootFile { path: format!("/{KERNEL}"), sha256: Sha256::of(&kernel) },
        initrd: BootFile { path: format!("/{INITRD}"), sha256: initrd.sha256 },
        command_line: spec.kernel.command_line.clone(),
    };
    let envelope =
        Signed::<Manifest>::sign(manifest.to_bytes()?, std::slice::from_ref(&signer.secret)).to_envelope();
    let bytes = trailer::encode(&envelope)
        .map_err(|error| BuildError::Bytes { what: "the manifest", source: io::Error::other(error) })?;
    let end = spec.partitions.root.get() - bytes.len() as u64;
    target.disk.write_sparse(at(end), &bytes).map_err(what("the manifest"))?;
    Ok(Sealed { manifest, envelope })
}
