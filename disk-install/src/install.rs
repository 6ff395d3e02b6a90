//! What an installation does, and in which order: plan, write, prove, start.
//!
//! Everything that can be refused is refused by `Installation::prepare`, which writes nothing. Afterwards the disk has
//! no boot sector until digest, signature and reading back agree.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use disk_formats::disk::{MAX_DISK_BYTES, ReadDisk};
use disk_formats::piece::Piece;
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable};
use image_format::layout::{Partition, PartitionRole};

use crate::choice::DiskNeed;
use crate::esp::{self, FatFile};
use crate::root::state_offset;
use crate::stream::PieceStream;
use crate::target::InstallTarget;
use crate::write::{DiskWriter, EraseScope, HEAD_BYTES};

/// Bytes of a sector of the disks that an image is for.
const SECTOR: u64 = 512;

/// Verifies a disk before it can start: says whose signature holds, or what is wrong.
pub type Verify<'a> = dyn Fn(Arc<dyn ReadDisk>, &PartitionTable) -> Result<String, String> + 'a;

/// What is asked of an installation.
pub struct InstallRequest<'a> {
    /// What the SHA-256 of the image's file must be.
    pub sha256: Option<&'a str>,
    /// What comes into the EFI partition.
    pub files: &'a [FatFile],
    /// What of the old disk goes.
    pub erase: EraseScope,
    /// What of the old disk stays.
    pub keep: KeptData,
    /// The proof that the disk may start.
    pub verify: &'a Verify<'a>,
    /// Is told how far it is; an error ends the installation.
    pub watch: &'a mut dyn FnMut(InstallStage, u64, u64) -> io::Result<()>,
}

/// What of an old installation stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptData {
    /// Nothing.
    Nothing,
    /// The partition STATE.
    State,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallStage {
    /// Zeros are written over all of it.
    Erase,
    /// What was written is read.
    ReadBack,
    /// The image is written.
    Write,
}

/// What came of it.
#[derive(Debug)]
pub struct InstalledImage {
    /// Whose signature holds, in words.
    pub signed: String,
    /// The SHA-256 of the image's file, as far as it is known.
    pub sha256: Option<String>,
}

/// An installation that may begin.
#[derive(Debug)]
pub struct Installation {
    target: Arc<dyn InstallTarget>,
    size: u64,
    kept: Range<u64>,
}

impl Installation {
    /// Looks at the disk that is to be written. Writes nothing.
    pub fn prepare(
        target: Arc<dyn InstallTarget>,
        size: u64,
        first: &Piece,
        keep: KeptData,
    ) -> Result<Self, InstallError> {
        let kept = match keep {
            KeptData::Nothing => 0..0,
            KeptData::State => kept_state(target.as_ref(), size, first)?,
        };
        Ok(Self { target, size, kept })
    }

    /// Writes the image, proves it, and lets it start.
    pub fn carry_out(
        self,
        mut stream: PieceStream,
        first: &Piece,
        request: InstallRequest<'_>,
    ) -> Result<InstalledImage, InstallError> {
        let watch = request.watch;
        let failed = InstallError::Write;
        let mut erase_watch = |done, total| watch(InstallStage::Erase, done, total);
        let kept = self.kept.clone();
        let mut writer = DiskWriter::start(self.target, self.size, kept, request.erase, &mut erase_watch)
            .map_err(failed)?;
        writer.add(first).map_err(failed)?;
        let table = writer.table().map_err(failed)?;
        while let Some(piece) = stream.next_piece().map_err(InstallError::Read)? {
            writer.add(&piece).map_err(failed)?;
            let (done, total) = stream.position();
            watch(InstallStage::Write, done, total).map_err(failed)?;
        }
        writer.write_needed_zeros(&table).map_err(failed)?;
        let sha256 = stream.digest();
        check_digest(request.sha256, sha256.as_deref())?;
        writer
            .read_back(&mut |done, total| watch(InstallStage::ReadBack, done, total))
            .map_err(InstallError::ReadBack)?;
        let signed = (request.verify)(writer.view(), &table).map_err(InstallError::Signature)?;
        add_esp_files(&writer, &table, request.files).map_err(InstallError::Files)?;
        writer.finish(&covering_table(table, &self.kept)).map_err(failed)?;
        Ok(InstalledImage { signed, sha256 })
    }
}

/// What the first piece says of the whole image.
pub fn image_need(first: &Piece) -> Result<DiskNeed, String> {
    let none = || "it has no partition table (GPT) for sectors of 512 bytes".to_owned();
    // How large the disk is follows from the table itself: the backup is in its last sector.
    let found = gpt::read_primary(table_copy(first).ok_or_else(none)?, Bytes::new(MAX_DISK_BYTES))
        .map_err(|_| none())?;
    if !found.table.is_of_image() {
        return Err("its partitions are not those of a Catamaran image".to_owned());
    }
    if first.length < HEAD_BYTES {
        return Err("it ends in its first MiB".to_owned());
    }
    Ok(DiskNeed { bytes: (found.other_lba + 1).saturating_mul(SECTOR), sector: SECTOR })
}

fn table_copy(first: &Piece) -> Option<&[u8]> {
    let start = usize::try_from(PRIMARY_OFFSET.get()).ok()?;
    first.data.as_ref()?.get(start..start + COPY_BYTES)
}

fn check_digest(wanted: Option<&str>, found: Option<&str>) -> Result<(), InstallError> {
    match (wanted, found) {
        (Some(wanted), found) if !found.is_some_and(|found| found.eq_ignore_ascii_case(wanted)) => {
            let found = found.unwrap_or_default().to_owned();
            Err(InstallError::Digest { found, wanted: wanted.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Where STATE lies, by its file system at the place where the image has it. The disk's own table is not asked: an
/// installation that was interrupted has emptied it, and can be run again.
fn kept_state(target: &dyn InstallTarget, size: u64, first: &Piece) -> Result<Range<u64>, InstallError> {
    let none = |because: &str| InstallError::NothingToKeep { because: because.to_owned() };
    let copy = table_copy(first).ok_or_else(|| none("the image has no partition table"))?;
    let table =
        gpt::read_primary(copy, Bytes::new(MAX_DISK_BYTES)).map_err(|error| none(&error.to_string()))?.table;
    let start = state_offset(&table).ok_or_else(|| none("the image has no partition STATE"))?.get();
    // ext4's superblock lies behind the room for a boot sector.
    let mut superblock = vec![0; 1024];
    let read = target.read_exact_at(&mut superblock, start + 1024);
    read.map_err(|error| none(&error.to_string()))?;
    let bytes = state_bytes(&superblock)
        .ok_or_else(|| none("where the image has its partition STATE, the disk has no such file system"))?;
    match start.checked_add(bytes) {
        // The last MiB is the backup table's.
        Some(end) if end <= size.saturating_sub(HEAD_BYTES as u64) => Ok(start..end),
        _ => Err(none("its file system reaches over the end of the disk")),
    }
}

/// How large the file system STATE is, if this is its superblock
/// (<https://docs.kernel.org/filesystems/ext4/super.html>).
fn state_bytes(superblock: &[u8]) -> Option<u64> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(*superblock.get(at..)?.first_chunk()?));
    // `s_magic` and `s_volume_name`.
    if superblock.get(0x38..0x3a)? != [0x53, 0xef]
        || superblock.get(0x78..0x88)? != *b"STATE\0\0\0\0\0\0\0\0\0\0\0"
    {
        return None;
    }
    // `INCOMPAT_64BIT`: only then the upper half of the count means anything.
    let high = if u32_at(0x60)? & 0x80 != 0 { u32_at(0x150)? } else { 0 };
    let shift = u32_at(0x18)?.checked_add(10).filter(|shift| *shift <= 16)?;
    (u64::from(high) << 32 | u64::from(u32_at(0x4)?)).checked_mul(1 << shift)
}

/// The image's table, in which STATE is as long as what is kept.
fn covering_table(mut table: PartitionTable, kept: &Range<u64>) -> PartitionTable {
    let label = Partition::of_role(PartitionRole::State).label;
    if let Some(state) = table.entries.iter_mut().find(|entry| entry.label == label)
        && kept.start < kept.end
    {
        state.last_lba = state.last_lba.max(kept.end.div_ceil(SECTOR) - 1);
    }
    table
}

/// Writes the files, and reads back that they are there.
fn add_esp_files(writer: &DiskWriter, table: &PartitionTable, files: &[FatFile]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let label = Partition::of_role(PartitionRole::Esp).label;
    let entry = table.find_label(label).ok_or_else(|| io::Error::other("the image has no EFI partition"))?;
    let (start, target) = (entry.byte_offset().get(), writer.target());
    let read = |buffer: &mut [u8], offset: u64| target.read_exact_at(buffer, start + offset);
    let changed = esp::plan_files(&read, entry.byte_size().get(), files)?;
    for (offset, block) in changed.iter().rev() {
        target.write_all_at(block, start + offset)?;
    }
    target.sync()?;
    for (offset, block) in &changed {
        let mut found = vec![0; block.len()];
        read(&mut found, *offset)?;
        if found != *block {
            return Err(io::Error::other("they do not read as they were written"));
        }
    }
    Ok(())
}

impl std::fmt::Debug for InstallRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallRequest")
            .field("erase", &self.erase)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// Why an image is not on the disk.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum InstallError {
    #[error("the image's SHA-256 is {found}, and {wanted} was promised")]
    Digest { found: String, wanted: String },
    #[error("cannot put files into the EFI partition")]
    Files(#[source] io::Error),
    #[error("there is no STATE to keep: {because}")]
    NothingToKeep { because: String },
    #[error("cannot read the image")]
    Read(#[source] io::Error),
    #[error("the disk does not give back what was written")]
    ReadBack(#[source] io::Error),
    #[error("{0}")]
    Signature(String),
    #[error("cannot write to the disk")]
    Write(#[source] io::Error),
}

#[cfg(test)]
mod tests;
