//! The release manifest: what a slot holds, and the numbers by which it is opened.
//!
//! Knows the fields and which values make sense. Refuses to know who signed it
//! ([`crate::signed`]) and where it is stored ([`crate::trailer`]).
//! Invariant: a manifest that was read describes a root that dm-verity can open: sizes are whole
//! blocks, the tree lies behind the data and has the length that the data needs.
//!
//! How it may grow: within a `format`, a reader ignores fields that it does not know, so a field that an old
//! reader may safely miss needs no new number. A field that it must not miss, such as another way to verify the
//! root, comes with the next number, which old readers refuse by name before they read anything else.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::command_line::CommandLine;
use crate::digest::{ParseHexError, Sha256, from_hex};
use crate::signed::SignedPayload;
use crate::trailer::TRAILER_BYTES;
use crate::verity::{self, BLOCK_BYTES};
use crate::version::Version;

/// The format that is written, and the only one that is read. Builds before it had no number, and said nothing of
/// the command line: an image from then does not start by accident with a line that nobody checked.
pub const FORMAT: u32 = 1;
/// Bytes of the largest manifest that is read.
// With its signatures it must fit into an envelope.
pub const MAX_MANIFEST: usize = 16 << 10;
/// Bytes of the longest salt.
pub const MAX_SALT: usize = 64;

const MAX_WORD: usize = 64;
const MAX_PATH: usize = 256;
/// The largest root that is believed: 1 TiB.
const MAX_DATA: u64 = 1 << 40;

/// What a slot holds.
///
/// ```
/// use image_format::digest::Sha256;
/// use image_format::manifest::{BootFile, FORMAT, Manifest, RootPlacement, Salt};
/// use image_format::signed::SignedPayload;
/// use image_format::version::Version;
///
/// let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(path.as_bytes()) };
/// let manifest = Manifest {
///     format: FORMAT,
///     name: "cloud".to_owned(),
///     version: Version::new(1, 2, 3),
///     channel: "stable".to_owned(),
///     architecture: "x86_64".to_owned(),
///     built: 1_700_000_000,
///     development: false,
///     security_epoch: 0,
///     root: RootPlacement {
///         data_bytes: 129 * 4096,
///         tree_offset: 129 * 4096,
///         tree_bytes: 3 * 4096,
///         root_hash: Sha256::digest_of(b"the tree's topmost block"),
///         salt: Salt::new(vec![0xab; 32])?,
///     },
///     kernel: file("/boot/vmlinuz"),
///     initrd: file("/boot/initrd"),
///     command_line: "console=ttyS0 quiet".parse()?,
/// };
/// assert_eq!(Manifest::from_bytes(&manifest.to_bytes()?)?, manifest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The name of the image, such as `cloud`.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The channel it was built for.
    pub channel: String,
    /// The machine it runs on, as `uname -m` names it.
    pub architecture: String,
    /// When it was built: seconds since 1970, from the build's epoch.
    pub built: u64,
    /// Whether it was signed by a development key: one that a builder made by itself and keeps in its cache.
    pub development: bool,
    /// Its security epoch: a machine on which it proved itself never takes a lower one again. It stands here too, not
    /// in the channel's metadata alone, since who holds a channel key must not be able to call an old release a new one.
    #[serde(default, skip_serializing_if = "is_first_epoch")]
    pub security_epoch: u32,
    /// The root file system.
    pub root: RootPlacement,
    /// The kernel inside the root.
    pub kernel: BootFile,
    /// The initramfs inside the root.
    pub initrd: BootFile,
    /// What the kernel is given, but for what the boot loader adds.
    pub command_line: CommandLine,
}

/// What every format begins with. Format 0 has no number.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: u32,
}

/// The root file system and its hash tree, by their places in the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPlacement {
    /// Bytes of the file system, which begins at 0.
    pub data_bytes: u64,
    /// Where the hash tree begins.
    pub tree_offset: u64,
    /// Bytes of the hash tree.
    pub tree_bytes: u64,
    /// The hash of the tree's topmost block.
    pub root_hash: Sha256,
    /// What is hashed before each block.
    pub salt: Salt,
}

impl RootPlacement {
    /// The data's blocks, of [`BLOCK_BYTES`] each.
    #[must_use]
    pub const fn data_blocks(&self) -> u64 {
        self.data_bytes / BLOCK_BYTES as u64
    }

    /// The block at which the hash tree begins.
    #[must_use]
    pub const fn tree_block(&self) -> u64 {
        self.tree_offset / BLOCK_BYTES as u64
    }

    /// The same, as what checks single blocks takes it.
    #[must_use]
    pub fn verity_placement(&self) -> verity::VerityPlacement<'_> {
        verity::VerityPlacement {
            data_blocks: self.data_blocks(),
            tree_block: self.tree_block(),
            salt: self.salt.as_bytes(),
            root_hash: self.root_hash,
        }
    }

    /// The smallest slot that holds it, with its manifest.
    #[must_use]
    pub const fn slot_bytes(&self) -> Bytes {
        Bytes::new(self.tree_offset + self.tree_bytes + TRAILER_BYTES as u64)
    }
}

/// A file inside the root that the boot loader reads, which no dm-verity guards then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Its absolute path in the root.
    pub path: String,
    /// The digest of its bytes.
    pub sha256: Sha256,
}

/// A salt of at most [`MAX_SALT`] bytes, written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt(Vec<u8>);

impl Salt {
    /// A salt, unless it is too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ParseSaltError> {
        if bytes.len() > MAX_SALT {
            return Err(ParseSaltError::TooLong { given: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Salt {
    type Error = ParseSaltError;

    fn try_from(text: String) -> Result<Self, ParseSaltError> {
        if text.len() > 2 * MAX_SALT {
            return Err(ParseSaltError::TooLong { given: text.len() / 2 });
        }
        Self::new(from_hex(&text)?)
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> Self {
        crate::digest::to_hex(&salt.0)
    }
}

/// Why a text is not a salt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseSaltError {
    #[error("the salt is not written in hexadecimal")]
    Hex(#[from] ParseHexError),
    #[error("the salt has {given} bytes, at most {MAX_SALT} are allowed")]
    TooLong { given: usize },
}

impl Manifest {
    /// The bytes to sign.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check_fields()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| ManifestError::Json { source })?;
        bytes.push(b'\n');
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge { given: bytes.len() });
        }
        Ok(bytes)
    }

    fn check_fields(&self) -> Result<(), ManifestError> {
        check_format(self.format)?;
        let words = [("name", &self.name), ("channel", &self.channel), ("architecture", &self.architecture)];
        if let Some((field, value)) = words.into_iter().find(|(_, value)| !is_word(value)) {
            return Err(ManifestError::Word { field, value: shorten_text(value) });
        }
        let paths = [("kernel", &self.kernel.path), ("initrd", &self.initrd.path)];
        if let Some((field, path)) = paths.into_iter().find(|(_, path)| !is_path(path)) {
            return Err(ManifestError::Path { field, path: shorten_text(path) });
        }
        self.root.check_fields()
    }
}

impl RootPlacement {
    fn check_fields(&self) -> Result<(), ManifestError> {
        let block = BLOCK_BYTES as u64;
        let whole = |bytes: u64| bytes.is_multiple_of(block) && bytes <= 2 * MAX_DATA;
        if self.data_bytes == 0 || self.data_bytes > MAX_DATA || !whole(self.data_bytes) {
            return Err(ManifestError::DataBytes { given: self.data_bytes });
        }
        if self.tree_offset < self.data_bytes || !whole(self.tree_offset) {
            return Err(ManifestError::TreeOffset { given: self.tree_offset, data: self.data_bytes });
        }
        let needed = verity::tree_blocks(self.data_blocks()) * block;
        // The length follows from the data, so a manifest that says another one is wrong, whoever signed it.
        if self.tree_bytes != needed {
            return Err(ManifestError::TreeBytes { given: self.tree_bytes, needed });
        }
        Ok(())
    }
}

impl SignedPayload for Manifest {
    const ROLE: &'static str = "manifest";
    type Error = ManifestError;

    fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge { given: bytes.len() });
        }
        let json = |source| ManifestError::Json { source };
        // First alone: a later format may change what any other field means, and then the number is what to
        // tell.
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        check_format(head.format)?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        manifest.check_fields()?;
        Ok(manifest)
    }
}

fn check_format(given: u32) -> Result<(), ManifestError> {
    if given == FORMAT { Ok(()) } else { Err(ManifestError::Format { given }) }
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ManifestError {
    #[error(
        "the root has {given} bytes, which is not a number of whole blocks up to {}",
        Bytes::new(MAX_DATA)
    )]
    DataBytes { given: u64 },
    #[error(
        "the manifest has format {given}, but format {FORMAT} is read here: it is of {} release",
        if *given > FORMAT { "a later" } else { "an earlier" }
    )]
    Format { given: u32 },
    #[error("the manifest is not the JSON it should be")]
    Json { source: serde_json::Error },
    #[error("the path of the {field} is {path:?}, which is not an absolute path of plain names")]
    Path { field: &'static str, path: String },
    #[error("the manifest has {given} bytes, at most {MAX_MANIFEST} are read")]
    TooLarge { given: usize },
    #[error("the hash tree has {given} bytes, but the root needs one of {needed}")]
    TreeBytes { given: u64, needed: u64 },
    #[error("the hash tree begins at {given}, which is not a block behind the {data} bytes of the root")]
    TreeOffset { given: u64, data: u64 },
    #[error("the {field} is {value:?}, which is not 1 to {MAX_WORD} letters, digits, '.', '-' or '_'")]
    Word { field: &'static str, value: String },
}

/// The first epoch is not written: manifests had none before there was a second.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_first_epoch(epoch: &u32) -> bool {
    *epoch == 0
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_+".contains(&byte)
}

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|byte| is_name_byte(byte) && byte != b'+')
}

fn is_path(text: &str) -> bool {
    // It is compared with the path that GRUB hands to the kernel, so it must have one spelling.
    let plain = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(is_name_byte);
    text.len() <= MAX_PATH && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

fn shorten_text(text: &str) -> String {
    text.chars().take(MAX_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file =
            |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(path.as_bytes()) };
        Manifest {
            format: FORMAT,
            name: "cloud".into(),
            version: Version::new(1, 2, 3),
            channel: "stable".into(),
            architecture: "x86_64".into(),
            built: 1_700_000_000,
            development: false,
            security_epoch: 0,
            root: RootPlacement {
                data_bytes: 129 * 4096,
                tree_offset: 129 * 4096,
                tree_bytes: 3 * 4096,
                root_hash: Sha256::digest_of(b"root"),
                salt: Salt::new(vec![0xab; 32]).unwrap(),
            },
            kernel: file("/boot/vmlinuz"),
            initrd: file("/boot/initrd"),
            command_line: "console=ttyS0,115200n8 quiet".parse().unwrap(),
        }
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = manifest();
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        Manifest::from_bytes(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_survives_its_bytes_and_they_are_this_text() {
        let bytes = manifest().to_bytes().unwrap();

        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), include_str!("../tests/data/manifest.golden"));
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest());
        assert_eq!(manifest().root.slot_bytes(), Bytes::new(132 * 4096 + (64 << 10)));
    }

    #[test]
    fn numbers_that_describe_no_verity_device_are_refused() {
        assert_eq!(
            refused(|m| m.root.data_bytes = 4097),
            "the root has 4097 bytes, which is not a number of whole blocks up to 1024 GiB"
        );
        assert_eq!(
            refused(|m| m.root.data_bytes = 1 << 50),
            "the root has 1125899906842624 bytes, which is not a number of whole blocks up to 1024 GiB"
        );
        assert_eq!(
            refused(|m| m.root.tree_offset = 4096),
            "the hash tree begins at 4096, which is not a block behind the 528384 bytes of the root"
        );
        assert_eq!(
            refused(|m| m.root.tree_bytes = 4096),
            "the hash tree has 4096 bytes, but the root needs one of 12288"
        );
    }

    #[test]
    fn names_and_paths_that_could_lead_elsewhere_are_refused() {
        for path in ["boot/vmlinuz", "/boot/../etc/shadow", "//boot", "/", "/boot/vm linuz", ""] {
            let said = refused(|m| m.kernel.path = path.to_owned());
            assert!(said.starts_with("the path of the kernel is"), "{said}");
        }
        for word in ["", "a b", "sta\nble", &"x".repeat(65)] {
            let said = refused(|m| m.channel = word.to_owned());
            assert!(said.starts_with("the channel is"), "{said}");
        }
    }

    #[test]
    fn a_field_of_the_future_is_ignored_and_a_format_of_the_future_is_refused_by_name() {
        let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
        let with = |from: &str, to: &str| Manifest::from_bytes(text.replacen(from, to, 1).as_bytes());

        for (from, to) in [
            ("{", "{\"delta\": {\"from\": [1]},"),
            ("\"root\": {", "\"root\": {\"fec\": 1,"),
            ("\"kernel\": {", "\"kernel\": {\"size\": 1,"),
        ] {
            assert_eq!(with(from, to).unwrap(), manifest(), "{to}");
        }
        assert_eq!(
            with("\"format\": 1,", "\"format\": 2, \"root\": 7,").unwrap_err().to_string(),
            "the manifest has format 2, but format 1 is read here: it is of a later release"
        );
        assert_eq!(
            with("\"format\": 1,", "").unwrap_err().to_string(),
            "the manifest has format 0, but format 1 is read here: it is of an earlier release"
        );
        assert!(manifest().to_bytes().is_ok() && Manifest { format: 2, ..manifest() }.to_bytes().is_err());
    }

    #[test]
    fn a_command_line_that_the_boot_loader_would_change_is_refused() {
        let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
        for line in ["quiet catamaran.slot=b", "a\\\\b", "a\\u0000b", "$x"] {
            let forged = text.replace("console=ttyS0,115200n8 quiet", line);
            assert!(
                matches!(Manifest::from_bytes(forged.as_bytes()), Err(ManifestError::Json { .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn a_manifest_that_is_too_large_is_not_even_parsed() {
        let bytes = vec![b'['; MAX_MANIFEST + 1];

        assert!(matches!(Manifest::from_bytes(&bytes), Err(ManifestError::TooLarge { .. })));
    }
}
