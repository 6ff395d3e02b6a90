//! Opens a disk of any format, by its bytes and not by its name.

use crate::disk::{OpenDiskError, ReadAt, ReadDisk};
use crate::format::Format;
use crate::raw::RawDisk;
use crate::stream::Compression;
use crate::{qcow2, vhd, vhdx, vmdk};

/// What a file holds.
#[derive(Debug)]
pub enum Opened {
    /// A disk that can be read anywhere.
    Disk(Format, Box<dyn ReadDisk>),
    /// A raw disk in a stream, which must be unpacked first.
    Stream(Compression),
}

/// Opens a file. What has no mark of another format is taken for a raw disk.
pub fn open_disk(file: impl ReadAt + 'static) -> Result<Opened, OpenDiskError> {
    let mut head = [0; 112];
    let length = file.byte_length().map_err(OpenDiskError::Read)?;
    let available = usize::try_from(length.min(112)).unwrap_or_default();
    file.read_exact_at(&mut head[..available], 0).map_err(OpenDiskError::Read)?;
    let disk = |format, disk| Ok(Opened::Disk(format, disk));
    if let Some(compression) = Compression::detect_compression(&head) {
        return Ok(Opened::Stream(compression));
    }
    match &head {
        [b'Q', b'F', b'I', 0xfb, ..] => {
            // The header says how clusters are compressed, if it says so at all.
            let zstd = head[79] & 8 != 0 && head[104] == 1;
            disk(if zstd { Format::Qcow2Zstd } else { Format::Qcow2 }, qcow2::open_qcow2(file)?)
        }
        [b'v', b'h', b'd', b'x', b'f', b'i', b'l', b'e', ..] => disk(Format::Vhdx, vhdx::open_vhdx(file)?),
        [b'K', b'D', b'M', b'V', ..] => {
            // Of the flags, the one for compressed grains.
            let format = if head[10] & 1 != 0 { Format::Vmdk } else { Format::VmdkSparse };
            disk(format, vmdk::open_vmdk(file)?)
        }
        [b'c', b'o', b'n', b'e', b'c', b't', b'i', b'x', ..] => disk(Format::Vhd, vhd::open_vhd(file)?),
        _ if head.starts_with(b"# Disk Descripto") => Err(OpenDiskError::Unsupported {
            format: "VMDK",
            what: "its data in other files: `qemu-img convert` makes one file of them",
        }),
        _ if vhd::has_footer(&file).map_err(OpenDiskError::Read)? => {
            disk(Format::VhdFixed, vhd::open_vhd(file)?)
        }
        _ => disk(Format::Raw, Box::new(RawDisk::new(file)?)),
    }
}
