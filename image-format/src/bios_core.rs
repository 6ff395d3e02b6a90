//! GRUB for BIOS in two halves of its partition: sector 0 names the one that starts, and is one write.
//!
//! The BIOS partition has room for two core images. The boot code in sector 0 has the sector of one of them, so another
//! core image is written to the other half first, and becomes the one that starts by a change of eight bytes in one
//! sector, which a disk writes or does not. Knows the places that Debian's GRUB has in its images. Refuses to know what
//! is in a core image. Invariant: the half that sector 0 names is never written.
//!
//! Documentation: GRUB's `include/grub/i386/pc/boot.h` and `grub-core/boot/i386/pc/diskboot.S`.

/// Bytes of sector 0 before the partition table that belong to boot code.
// From 440 on stand the disk's signature and the old partition table.
pub const BOOT_CODE: usize = 440;
/// In boot code: the sector of the core image.
const KERNEL_SECTOR: usize = 0x5c;
/// In boot code: a jump that must become two `nop`s, so that the BIOS's word on the drive is taken.
// grub-bios-setup does so for disks that are no floppies: some BIOSes pass a wrong drive number.
const DRIVE_CHECK: usize = 0x66;
/// In the core image's first sector: the list of sectors it continues on.
const BLOCK_LIST: usize = 0x1f4;
/// Where in memory, divided by 16, the rest of the core image goes.
const LOAD_SEGMENT: u16 = 0x0820;
const SECTOR: usize = 512;

/// Why GRUB for BIOS cannot be put on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PlaceCoreError {
    #[error("GRUB's boot.img is shorter than {BOOT_CODE} bytes")]
    BootCode,
    #[error("GRUB's core image has {size} bytes, and half of the BIOS partition has room for {room}")]
    Size { size: usize, room: u64 },
}

/// The two places of a core image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreHalves {
    first_lba: u64,
    sectors: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreHalf {
    /// At the partition's beginning.
    First,
    /// In its middle.
    Second,
}

impl CoreHalves {
    /// Those of a BIOS partition.
    #[must_use]
    pub const fn of_partition(first_lba: u64, sectors: u64) -> Self {
        Self { first_lba, sectors: sectors / 2 }
    }

    /// The first sector of a half.
    #[must_use]
    pub const fn first_lba(self, half: CoreHalf) -> u64 {
        match half {
            CoreHalf::First => self.first_lba,
            CoreHalf::Second => self.first_lba + self.sectors,
        }
    }

    /// The half that this sector 0 starts; none if it starts something else.
    #[must_use]
    pub fn active(self, sector: &[u8]) -> Option<CoreHalf> {
        let named = u64::from_le_bytes(*sector.get(KERNEL_SECTOR..)?.first_chunk()?);
        [CoreHalf::First, CoreHalf::Second].into_iter().find(|half| self.first_lba(*half) == named)
    }

    /// A core image as it stands in a half, told where the rest of it lies.
    pub fn place_core(self, core: &[u8], half: CoreHalf) -> Result<Vec<u8>, PlaceCoreError> {
        let sectors = core.len().div_ceil(SECTOR);
        let size = PlaceCoreError::Size { size: core.len(), room: self.sectors * SECTOR as u64 };
        // The first sector is loaded by the boot code and loads the others itself.
        if core.len() < SECTOR || sectors as u64 > self.sectors {
            return Err(size);
        }
        let mut placed = core.to_vec();
        placed.resize(sectors * SECTOR, 0);
        // The list has 16 bits for the count, 8 bytes for the first sector before it, and the segment behind it.
        let rest = u16::try_from(sectors - 1).map_err(|_| size)?;
        placed[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(self.first_lba(half) + 1).to_le_bytes());
        placed[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
        placed[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&LOAD_SEGMENT.to_le_bytes());
        Ok(placed)
    }

    /// Boot code that loads a half.
    pub fn boot_code(self, boot_img: &[u8], half: CoreHalf) -> Result<[u8; BOOT_CODE], PlaceCoreError> {
        let mut code = *boot_img.first_chunk::<BOOT_CODE>().ok_or(PlaceCoreError::BootCode)?;
        code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&self.first_lba(half).to_le_bytes());
        code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
        Ok(code)
    }
}

impl std::ops::Not for CoreHalf {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: CoreHalves = CoreHalves::of_partition(2048, 2048);

    #[test]
    fn each_half_is_found_again_by_its_boot_code() {
        for half in [CoreHalf::First, CoreHalf::Second] {
            let code = HALVES.boot_code(&[7; 512], half).unwrap();

            assert_eq!(HALVES.active(&code), Some(half));
            assert_eq!(code[DRIVE_CHECK..DRIVE_CHECK + 2], [0x90, 0x90]);
        }
        assert_eq!(HALVES.active(&[7; 512]), None);
        assert_eq!(HALVES.active(&[]), None);
        assert_eq!(HALVES.boot_code(&[7; 100], CoreHalf::First), Err(PlaceCoreError::BootCode));
    }

    #[test]
    fn a_core_image_is_told_where_the_rest_of_it_lies() {
        let core = vec![1; 3 * SECTOR - 5];

        let placed = HALVES.place_core(&core, CoreHalf::Second).unwrap();

        assert_eq!(placed.len(), 3 * SECTOR);
        assert_eq!(placed[BLOCK_LIST..BLOCK_LIST + 8], 3073_u64.to_le_bytes());
        assert_eq!(placed[BLOCK_LIST + 8..BLOCK_LIST + 12], [2, 0, 0x20, 0x08]);
        assert_eq!(HALVES.first_lba(CoreHalf::Second), 3072);
    }

    #[test]
    fn a_core_image_that_is_larger_than_its_half_is_refused() {
        for length in [100, 1024 * SECTOR + 1] {
            let refused = HALVES.place_core(&vec![1; length], CoreHalf::First);
            assert_eq!(refused, Err(PlaceCoreError::Size { size: length, room: 512 << 10 }));
        }
        assert!(HALVES.place_core(&vec![1; 1024 * SECTOR], CoreHalf::First).is_ok());
    }
}
