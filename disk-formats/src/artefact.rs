//! The encoder of a format, by its name.

use std::io;

use crate::bmap::BmapEncoder;
use crate::encode::Encoder;
use crate::format::Format;
use crate::qcow2::{Qcow2Compression, Qcow2Encoder};
use crate::raw::RawEncoder;
use crate::stream::{Compression, StreamEncoder};
use crate::target::Target;
use crate::vhd::{VhdDynamicEncoder, VhdFixedEncoder};
use crate::vhdx::VhdxEncoder;
use crate::vmdk::{VmdkSparseEncoder, VmdkStreamEncoder};

/// Writes a disk of that size in that format into an empty target, which will be a file of that name.
pub fn open_encoder<'a, T: Target + 'a>(
    format: Format,
    target: T,
    size: u64,
    name: &str,
) -> io::Result<Box<dyn Encoder + 'a>> {
    Ok(match format {
        Format::Bmap => Box::new(BmapEncoder::new(target)),
        Format::Qcow2 => Box::new(Qcow2Encoder::new(target, size, Qcow2Compression::Deflate)),
        Format::Qcow2Zstd => Box::new(Qcow2Encoder::new(target, size, Qcow2Compression::Zstd)),
        Format::Raw => Box::new(RawEncoder::new(target)),
        Format::RawGz => Box::new(StreamEncoder::new(target, Compression::Gzip)?),
        Format::RawXz => Box::new(StreamEncoder::new(target, Compression::Xz)?),
        Format::RawZst => Box::new(StreamEncoder::new(target, Compression::Zstd)?),
        Format::Vhd => Box::new(VhdDynamicEncoder::new(target, size)),
        Format::VhdFixed => Box::new(VhdFixedEncoder::new(target)),
        Format::Vhdx => Box::new(VhdxEncoder::new(target, size)),
        Format::Vmdk => Box::new(VmdkStreamEncoder::new(target, size, name)),
        Format::VmdkSparse => Box::new(VmdkSparseEncoder::new(target, size, name)),
    })
}
