//! FAT file systems, built in memory: same files, same bytes.
//!
//! The crate fatfs writes them, with a fixed clock. What it gets wrong is mended here: the `.` and
//! `..` entries of a directory come out with long-name entries before them and a generated short name
//! (rafalh/rust-fatfs#117), which fsck.vfat rejects. Source: Microsoft's FAT specification, 6.5.

use std::io::{self, Cursor};

use disk_install::esp::{FatFile, open_volume, write_files};
use fatfs::FormatVolumeOptions;

/// A volume of `size` bytes that holds `files`, in their order, and the directories they need.
pub(crate) fn fat_volume(
    size: usize,
    options: FormatVolumeOptions,
    files: &[FatFile],
) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; size]);
    fatfs::format_volume(&mut disk, options)?;
    {
        let system = open_volume(&mut disk)?;
        for FatFile { path, .. } in files {
            for (slash, _) in path.match_indices('/') {
                // fatfs gives back the folder that is there if there is one.
                system.root_dir().create_dir(&path[..slash])?;
            }
        }
        system.unmount()?;
    }
    // Before any file is written, so that nothing but directories can look like one.
    let mut volume = disk.into_inner();
    mend_dot_entries(&mut volume);
    let mut disk = Cursor::new(volume);
    write_files(&mut disk, files)?;
    Ok(disk.into_inner())
}

const ENTRY: usize = 32;
const ATTRIBUTES: usize = 11;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
/// The two halves of an entry's first cluster.
const CLUSTER_HIGH: usize = 20;
const CLUSTER_LOW: usize = 26;
/// Where fatfs puts the root directory of a FAT32 volume.
const ROOT_CLUSTER: [u8; 2] = 2_u16.to_le_bytes();
const DELETED: u8 = 0xe5;

/// Removes the long names before `.` and `..`, and lets those be a directory's first two entries. A
/// directory begins at the start of a sector, so that is where they are looked for.
fn mend_dot_entries(volume: &mut [u8]) {
    for sector in volume.chunks_exact_mut(512) {
        let is = |index: usize, attributes: u8, name: &[u8]| {
            let entry = &sector[index * ENTRY..];
            entry[ATTRIBUTES] == attributes && entry.starts_with(name)
        };
        if is(0, LONG_NAME, b"")
            && is(1, DIRECTORY, b".       ")
            && is(2, LONG_NAME, b"")
            && is(3, DIRECTORY, b"..      ")
        {
            sector.copy_within(ENTRY..2 * ENTRY, 0);
            sector.copy_within(3 * ENTRY..4 * ENTRY, ENTRY);
            // The root directory is cluster 0 to its subdirectories, whichever it is.
            let at = |half: usize| ENTRY + half..ENTRY + half + 2;
            if sector[at(CLUSTER_HIGH)] == [0, 0] && sector[at(CLUSTER_LOW)] == ROOT_CLUSTER {
                sector[at(CLUSTER_LOW)].fill(0);
            }
            sector[2 * ENTRY..4 * ENTRY].fill(0);
            // Deleted and not zero: a zero byte would end the directory, and files come behind.
            sector[2 * ENTRY] = DELETED;
            sector[3 * ENTRY] = DELETED;
        }
    }
}

#[cfg(test)]
mod tests {
    use fatfs::{FileSystem, FsOptions};

    use super::*;

    fn files() -> Vec<FatFile> {
        ["EFI/BOOT/BOOTX64.EFI", "EFI/debian/grub.cfg", "seed/README.txt"]
            .map(|path| FatFile { path: path.to_owned(), bytes: path.repeat(999).into_bytes() })
            .to_vec()
    }

    #[test]
    fn a_volume_is_the_same_every_time_and_reads_back() {
        let options = || FormatVolumeOptions::new().volume_id(7).volume_label(*b"ESP        ");

        let volume = fat_volume(48 << 20, options(), &files()).unwrap();

        assert!(volume == fat_volume(48 << 20, options(), &files()).unwrap());
        let system = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
        let names: Vec<String> = system
            .root_dir()
            .open_dir("EFI")
            .unwrap()
            .iter()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [".", "..", "BOOT", "debian"]);
    }
}
