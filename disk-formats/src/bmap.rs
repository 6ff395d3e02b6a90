//! The block map of bmap-tools, version 2.0: which blocks of a raw image a flasher must write, and their SHA-256.
//!
//! Format: <https://github.com/yoctoproject/bmaptool>, `bmaptool/BmapCreate.py`. Ranges end with a piece, so that workers
//! hash them; readers do not mind that one range goes on where another ends.
//!
//! Unlike bmaptool, the map can list blocks that are zero: on a disk that was used before, a block that is not written
//! has old bytes, and dm-verity refuses the root. The caller says where that matters.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::content::{Content, HashedRun};
use crate::encode::Encoder;
use crate::packing::{Packed, Packing};
use crate::piece::{BLOCK_BYTES, Piece};
use crate::target::Target;

/// Writes a block map.
#[derive(Debug)]
pub struct BmapEncoder<T> {
    target: T,
    ranges: String,
    blocks: u64,
}

impl<T: Target> BmapEncoder<T> {
    /// Writes into an empty target.
    pub const fn new(target: T) -> Self {
        Self { target, ranges: String::new(), blocks: 0 }
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Stands for the file's own hash while it is hashed.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl<T: Target> Encoder for BmapEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::MapHashes
    }

    fn add(&mut self, _: &Piece, packed: &Packed) -> io::Result<()> {
        let Packed::Hashes(runs) = packed else { return Err(io::ErrorKind::InvalidInput.into()) };
        for HashedRun { range, sha256 } in runs {
            let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
            self.blocks += last - first + 1;
            let blocks = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let _ =
                writeln!(self.ranges, "        <Range chksum=\"{}\"> {blocks} </Range>", encode_hex(sha256));
        }
        Ok(())
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let size = content.size;
        let text = format!(
            "<?xml version=\"1.0\" ?>\n\
             <!-- Which blocks of a disk image must be written, and what they are. bmaptool copy reads it. -->\n\
             <bmap version=\"2.0\">\n    \
             <ImageSize> {size} </ImageSize>\n    \
             <BlockSize> {BLOCK} </BlockSize>\n    \
             <BlocksCount> {} </BlocksCount>\n    \
             <MappedBlocksCount> {} </MappedBlocksCount>\n    \
             <ChecksumType> sha256 </ChecksumType>\n    \
             <BmapFileChecksum> {NO_HASH} </BmapFileChecksum>\n    \
             <BlockMap>\n{}    </BlockMap>\n</bmap>\n",
            size.div_ceil(BLOCK),
            self.blocks,
            self.ranges
        );
        let text = text.replacen(NO_HASH, &encode_hex(&Sha256::digest(text.as_bytes())), 1);
        self.target.write_at(text.as_bytes(), 0)?;
        self.target.set_length(text.len() as u64)
    }
}

/// A block map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmap {
    /// How large the image is.
    pub size: u64,
    /// What must be written, in order.
    pub runs: Vec<HashedRun>,
}

/// No map of a disk of ours comes near it; a larger one would only take memory.
const MAX_TEXT_BYTES: usize = 32 << 20;

impl Bmap {
    /// Reads a map, and checks that it is whole and in order.
    pub fn parse_map(text: &str) -> Result<Self, ParseBmapError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParseBmapError::TooLarge);
        }
        let document = roxmltree::Document::parse(text)?;
        let root = document.root_element();
        if root.attribute("version").and_then(|version| version.split('.').next()) != Some("2") {
            return Err(ParseBmapError::Version);
        }
        let field = |name: &'static str| {
            let node = root.children().find(|node| node.has_tag_name(name));
            node.and_then(|node| node.text()).map(str::trim).ok_or(ParseBmapError::Missing { name })
        };
        let number = |name| field(name)?.parse::<u64>().map_err(|_| ParseBmapError::Missing { name });
        let (size, block) = (number("ImageSize")?, number("BlockSize")?);
        if field("ChecksumType")? != "sha256" {
            return Err(ParseBmapError::Checksum);
        }
        let given = field("BmapFileChecksum")?;
        if encode_hex(&Sha256::digest(text.replacen(given, NO_HASH, 1).as_bytes())) != given {
            return Err(ParseBmapError::Damaged);
        }
        let map = root.children().find(|node| node.has_tag_name("BlockMap"));
        let map = map.ok_or(ParseBmapError::Missing { name: "BlockMap" })?;
        let mut runs: Vec<HashedRun> = Vec::new();
        for node in map.children().filter(|node| node.has_tag_name("Range")) {
            let line = document.text_pos_at(node.range().start).row;
            let run = read_range(node, block, size).ok_or(ParseBmapError::Range { line })?;
            if runs.last().is_some_and(|last| last.range.end > run.range.start) {
                return Err(ParseBmapError::Range { line });
            }
            runs.push(run);
        }
        Ok(Self { size, runs })
    }
}

fn read_range(node: roxmltree::Node<'_, '_>, block: u64, size: u64) -> Option<HashedRun> {
    let text = node.text()?.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let start = first.checked_mul(block)?;
    let end = last.checked_add(1)?.checked_mul(block)?.min(size);
    let sha256 = from_hex(node.attribute("chksum")?)?;
    (start < end).then_some(HashedRun { range: Range { start, end }, sha256 })
}

/// Why a text is no block map.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseBmapError {
    #[error("the block map has other checksums than sha256")]
    Checksum,
    #[error("the block map's own checksum does not hold: it was damaged or changed")]
    Damaged,
    #[error("the block map has no <{name}>, or a wrong one")]
    Missing { name: &'static str },
    #[error("the block map's line {line} is no range of the image, or not in order")]
    Range { line: u32 },
    #[error("the block map has more than {MAX_TEXT_BYTES} bytes")]
    TooLarge,
    #[error("the block map is not of version 2")]
    Version,
    #[error("the block map is no XML")]
    Xml(#[from] roxmltree::Error),
}

/// The digits of a hash.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}
