//! A repository in a folder of its own, small images for it, and its keys.

use std::fs;
use std::path::Path;
use std::time::Duration;

use image_format::bytes::Bytes;
use image_format::digest::Sha256;
use image_format::gpt;
use image_format::layout::{DiskLayout, PartitionSizes};
use image_format::manifest::{BootFile, Manifest, RootPlacement, Salt};
use image_format::release::channel::{ChannelMetadata, FileReference};
use image_format::release::paths::{self, ChannelName};
use image_format::release::root::{Role, RootMetadata};
use image_format::release::time::UnixTime;
use image_format::signed::{SecretKey, Signed};
use image_format::verity;
use image_format::version::Version;

use crate::disk::DiskImage;
use crate::process::InterruptFlag;
use crate::release::change::OfferTerms;
use crate::release::channels::{Publisher, read_channel};
use crate::release::objects::{OrderedPayload, PayloadError, PayloadFormat, PayloadObject, PayloadOrder};
use crate::release::publish::{PublishError, PublishOrder, PublishedRelease, publish_image};
use crate::release::repository::Repository;
use crate::release::roots::RootChain;
use crate::release::rotation::{RotationWish, first_root};
use crate::release::signers::Signers;
use crate::release::stored::read_manifest;
use crate::release::verify::{Verifier, VerifyDepth, VerifyReport};

pub(super) const NOW: UnixTime = UnixTime::from_seconds(1_795_825_359);
pub(super) const MONTH: Duration = Duration::from_hours(30 * 24);

/// The seeds of the keys.
pub(super) const ROOT: u8 = 1;
pub(super) const CHANNEL: u8 = 20;
pub(crate) const RELEASE: u8 = 30;

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(super) fn stable() -> ChannelName {
    "stable".parse().unwrap()
}

/// A repository, and a folder for images beside it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    pub(super) now: UnixTime,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at_folder(&folder.path().join("repository"));
        let add = [(Role::Root, ROOT), (Role::Channel, CHANNEL), (Role::Release, RELEASE)];
        let add = add.map(|(role, seed)| (role, key(seed).public_key("test"))).to_vec();
        let root = first_root(RotationWish { add, ..RotationWish::default() }, NOW, 100 * MONTH).unwrap();
        let signed = Signed::<RootMetadata>::sign_payload(root.to_bytes().unwrap(), &[key(ROOT)]);
        repository.write_file(&paths::root_path(1), &signed.to_envelope()).unwrap();
        Self { folder, repository, now: NOW }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn chain(&self) -> RootChain {
        RootChain::read(&self.repository).unwrap()
    }

    /// Calls `act` with a publisher that has these keys.
    pub(super) fn with_publisher<T>(&self, seeds: &[u8], act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let keys: Vec<SecretKey> = seeds.iter().map(|seed| key(*seed)).collect();
        let (chain, signers) = (self.chain(), Signers::of(&keys));
        let (repository, now) = (&self.repository, self.now);
        act(&Publisher { repository, chain: &chain, signers: &signers, now, lifetime: MONTH })
    }

    /// Publishes an image of this version on the channel.
    pub(super) fn publish(&self, text: &str) -> Result<PublishedRelease, PublishError> {
        let image = self.build(text, text.as_bytes(), RELEASE);
        self.publish_folder(&image)
    }

    pub(super) fn publish_folder(&self, image: &Path) -> Result<PublishedRelease, PublishError> {
        self.publish_with(image, &TextPayloads)
    }

    pub(crate) fn publish_with(
        &self,
        image: &Path,
        format: &dyn PayloadFormat,
    ) -> Result<PublishedRelease, PublishError> {
        let channel = stable();
        let order = PublishOrder {
            image,
            channel: Some(&channel),
            terms: OfferTerms::default(),
            patch_bases: 2,
            recipe: Some("recipe".to_owned()),
        };
        self.with_publisher(&[CHANNEL], |publisher| publish_image(publisher, &order, format))
    }

    /// What `build` leaves in a folder, on a smaller scale.
    pub(crate) fn build(&self, text: &str, content: &[u8], seed: u8) -> std::path::PathBuf {
        let folder = self.path(&format!("image-{text}-{seed}"));
        fs::create_dir_all(&folder).unwrap();
        let mut data = content.to_vec();
        data.resize(4 * 4096, 0);
        let tree = verity::build_tree(&data.as_slice(), data.len() as u64, b"salt", 1).unwrap();
        write_disk(&folder.join("disk.raw"), &data);
        let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(content) };
        let manifest = Manifest {
            format: image_format::manifest::FORMAT,
            name: "cloud".into(),
            version: version(text),
            channel: "stable".into(),
            architecture: "x86_64".into(),
            built: NOW.seconds(),
            development: false,
            security_epoch: 0,
            root: RootPlacement {
                data_bytes: data.len() as u64,
                tree_offset: data.len() as u64,
                tree_bytes: tree.bytes.len() as u64,
                root_hash: tree.root_hash,
                salt: Salt::new(b"salt".to_vec()).unwrap(),
            },
            kernel: file("/boot/vmlinuz"),
            initrd: file("/boot/initrd.img"),
            command_line: "quiet".parse().unwrap(),
        };
        let signed = Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[key(seed)]);
        fs::write(folder.join("manifest"), signed.to_envelope()).unwrap();
        fs::write(folder.join("sbom.spdx.json"), format!("{{\"packages\": [], \"name\": {text:?}}}"))
            .unwrap();
        fs::write(folder.join("packages.lock"), "epoch 1\n[root]\n[tools]\n").unwrap();
        folder
    }

    pub(super) fn channel(&self) -> Option<ChannelMetadata> {
        read_channel(&self.repository, &self.chain(), &stable()).unwrap()
    }

    pub(crate) fn offered(&self) -> Vec<String> {
        let channel = self.channel();
        channel
            .iter()
            .flat_map(|channel| &channel.releases)
            .map(|release| release.version.to_string())
            .collect()
    }

    pub(super) fn verify(&self) -> VerifyReport {
        self.verify_with(&TextPayloads)
    }

    pub(crate) fn verify_with(&self, format: &dyn PayloadFormat) -> VerifyReport {
        let (repository, now, interrupt) = (&self.repository, self.now, InterruptFlag::default());
        Verifier { repository, format, interrupt: &interrupt, depth: VerifyDepth::Roots, now }
            .verify_repository()
    }

    /// The manifest of a release that was published.
    pub(crate) fn manifest(&self, text: &str) -> Manifest {
        (*read_manifest(&self.repository, self.chain().newest_root(), &version(text)).unwrap()).clone()
    }

    /// The faults and warnings of a verification, each as a line.
    pub(super) fn findings(&self) -> Vec<String> {
        self.verify().findings.iter().map(ToString::to_string).collect()
    }
}

fn write_disk(path: &Path, data: &[u8]) {
    let sizes = PartitionSizes { root: Bytes::from_mib(1), state: Bytes::from_mib(1) };
    let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(1), sizes).unwrap();
    // An image of the same name may have been made before.
    let _ = fs::remove_file(path);
    let disk = DiskImage::create_image(path, layout.disk_size()).unwrap();
    let copies = gpt::encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
    disk.write(gpt::PRIMARY_OFFSET, &copies.primary).unwrap();
    disk.write(gpt::backup_offset(layout.disk_size()).unwrap(), &copies.backup).unwrap();
    disk.write(layout.partition_of(crate::apply::FIRST).byte_offset(), data).unwrap();
}

/// A payload of one chunk, which is the root itself, and an index that is a line of text for each object.
pub(super) struct TextPayloads;

impl PayloadFormat for TextPayloads {
    fn write(&self, order: &PayloadOrder<'_>) -> Result<OrderedPayload, PayloadError> {
        let disk = DiskImage::open_read_only(order.disk)?;
        let data = disk.read(Bytes::new(order.offset), Bytes::new(order.manifest.root.data_bytes))?;
        let mut index = write_object(order, "chunk", &data)?;
        for base in &order.bases {
            let patch = format!("{} to {}", base.manifest.version, order.manifest.version);
            index.push_str(&write_object(order, "patch", patch.as_bytes())?);
        }
        Ok(OrderedPayload { index: index.into_bytes(), summary: "small".to_owned() })
    }

    fn objects(&self, index: &[u8]) -> Result<Vec<PayloadObject>, PayloadError> {
        let read = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [path, bytes, digest] = words[..] else { return Err("no index".into()) };
            let file = FileReference { bytes: bytes.parse()?, sha256: digest.parse()? };
            Ok(PayloadObject { path: path.to_owned(), file })
        };
        str::from_utf8(index)?.lines().map(read).collect()
    }

    fn prove(&self, repository: &Path, manifest: &Manifest, index: &[u8]) -> Result<(), PayloadError> {
        let chunk = &self.objects(index)?[0];
        let data = fs::read(repository.join(&chunk.path))?;
        let tree = verity::build_tree(&data.as_slice(), data.len() as u64, manifest.root.salt.as_bytes(), 1)?;
        if tree.root_hash == manifest.root.root_hash { Ok(()) } else { Err("it gives another root".into()) }
    }
}

fn write_object(order: &PayloadOrder<'_>, folder: &str, bytes: &[u8]) -> std::io::Result<String> {
    let digest = Sha256::digest_of(bytes);
    let path = if folder == "chunk" { paths::chunk_path(digest) } else { paths::patch_path(digest) };
    let file = order.repository.join(&path);
    fs::create_dir_all(file.parent().unwrap())?;
    fs::write(file, bytes)?;
    Ok(format!("{path} {} {digest}\n", bytes.len()))
}
