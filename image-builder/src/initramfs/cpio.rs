//! The archive format of an initramfs: cpio, "newc". Source: the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.
//!
//! Inode numbers count up and times are zero, so that equal contents give equal bytes.

/// An archive while it is written.
#[derive(Debug, Default)]
pub(crate) struct CpioArchive {
    bytes: Vec<u8>,
    inodes: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

impl CpioArchive {
    pub(crate) fn add_directory(&mut self, path: &str) {
        self.add_entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    pub(crate) fn add_file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.add_entry(path, REGULAR | mode, (0, 0), contents);
    }

    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add_entry(path, CHARACTER | 0o600, (major, minor), &[]);
    }

    pub(crate) fn finish_archive(mut self) -> Vec<u8> {
        self.inodes = 0;
        // The name that ends an archive. Without it the kernel would take what follows for another one.
        self.add_entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn add_entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inodes += 1;
        // A file with more links would make the kernel look for its other names.
        let links = if mode & DIRECTORY == 0 { 1 } else { 2 };
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.inodes, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad_to_word();
        self.bytes.extend(contents);
        self.pad_to_word();
    }

    fn pad_to_word(&mut self) {
        // "newc" aligns names and contents to four bytes.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_padded_and_ends_with_its_trailer() {
        let mut archive = CpioArchive::default();
        archive.add_file("init", 0o755, b"x");

        let bytes = archive.finish_archive();

        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(bytes[116], b'x');
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }
}
