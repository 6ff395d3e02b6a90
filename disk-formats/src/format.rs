//! The formats by their names, and which file's name says which.

use std::fmt;
use std::str::FromStr;

use crate::stream::Compression;

/// A format of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Format {
    Bmap,
    Qcow2,
    Qcow2Zstd,
    Raw,
    RawGz,
    RawXz,
    RawZst,
    Vhd,
    VhdFixed,
    Vhdx,
    Vmdk,
    VmdkSparse,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Bmap,
        Self::Qcow2,
        Self::Qcow2Zstd,
        Self::Raw,
        Self::RawGz,
        Self::RawXz,
        Self::RawZst,
        Self::Vhd,
        Self::VhdFixed,
        Self::Vhdx,
        Self::Vmdk,
        Self::VmdkSparse,
    ];

    /// What a person types.
    #[must_use]
    pub const fn option_name(self) -> &'static str {
        match self {
            Self::Bmap => "bmap",
            Self::Qcow2 => "qcow2",
            Self::Qcow2Zstd => "qcow2-zstd",
            Self::Raw => "raw",
            Self::RawGz => "raw.gz",
            Self::RawXz => "raw.xz",
            Self::RawZst => "raw.zst",
            Self::Vhd => "vhd",
            Self::VhdFixed => "vhd-fixed",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::VmdkSparse => "vmdk-sparse",
        }
    }

    /// What is put behind an image's name.
    #[must_use]
    pub const fn file_suffix(self) -> &'static str {
        match self {
            Self::Bmap => ".bmap",
            Self::Qcow2 => ".qcow2",
            Self::Qcow2Zstd => "-zstd.qcow2",
            Self::Raw => ".raw",
            Self::RawGz => ".raw.gz",
            Self::RawXz => ".raw.xz",
            Self::RawZst => ".raw.zst",
            Self::Vhd => ".vhd",
            Self::VhdFixed => "-fixed.vhd",
            Self::Vhdx => ".vhdx",
            Self::Vmdk => ".vmdk",
            Self::VmdkSparse => "-sparse.vmdk",
        }
    }

    /// The compression of a stream.
    #[must_use]
    pub const fn stream_compression(self) -> Option<Compression> {
        match self {
            Self::RawGz => Some(Compression::Gzip),
            Self::RawXz => Some(Compression::Xz),
            Self::RawZst => Some(Compression::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.option_name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.option_name() == text);
        found.ok_or_else(|| UnknownFormatError { name: text.to_owned() })
    }
}

/// No format has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no format is called `{name}`")]
pub struct UnknownFormatError {
    name: String,
}
