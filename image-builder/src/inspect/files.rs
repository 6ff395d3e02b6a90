//! Files of a slot's root, read straight out of its ext4.

use std::error::Error;
use std::fmt;

use ext4_view::{Ext4, Ext4Error, Ext4Read};
use image_format::bytes::Bytes;
use serde::Serialize;

use crate::disk::DiskImage;
use error_text::printable::printable_text;

/// A root file system.
pub(crate) struct RootReader {
    ext4: Ext4,
}

/// A stretch of a disk, as the ext4 reader wants it.
struct DiskStretch {
    disk: DiskImage,
    offset: u64,
    length: u64,
}

impl Ext4Read for DiskStretch {
    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        // A forged file system must not show what lies in another partition.
        if start.checked_add(into.len() as u64).is_none_or(|end| end > self.length) {
            return Err("the file system points behind its partition".into());
        }
        self.disk.read_into(Bytes::new(self.offset + start), into)?;
        Ok(())
    }
}

/// An item of a folder.
#[derive(Debug, Serialize)]
pub(crate) struct FolderItem {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Permission bits in octal.
    pub(crate) mode: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

impl fmt::Display for FolderItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, mode, uid, gid, bytes, target } = self;
        write!(f, "{mode} {uid:>5} {gid:>5} {bytes:>12}  {}", printable_text(name))?;
        match (target, *kind) {
            (Some(target), _) => write!(f, " -> {}", printable_text(target)),
            (None, "folder") => write!(f, "/"),
            _ => Ok(()),
        }
    }
}

impl RootReader {
    /// Opens the file system in a stretch of the disk.
    pub(crate) fn open_root(disk: &DiskImage, offset: Bytes, length: Bytes) -> Result<Self, OpenRootError> {
        let disk = disk.reopen_image()?;
        let stretch = DiskStretch { disk, offset: offset.get(), length: length.get() };
        Ok(Self { ext4: Ext4::load(Box::new(stretch))? })
    }

    /// The bytes of a file, links followed.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, Ext4Error> {
        self.ext4.read(path)
    }

    /// The text of a file that is there and is text.
    pub(crate) fn read_text(&self, path: &str) -> Option<String> {
        String::from_utf8(self.read(path).ok()?).ok()
    }

    pub(crate) fn is_folder(&self, path: &str) -> Result<bool, Ext4Error> {
        Ok(self.ext4.metadata(path)?.is_dir())
    }

    /// The items of a folder, by name.
    pub(crate) fn list_folder(&self, path: &str) -> Result<Vec<FolderItem>, Ext4Error> {
        let mut items = Vec::new();
        for entry in self.ext4.read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().display().to_string();
            if name == "." || name == ".." {
                continue;
            }
            let metadata = entry.metadata()?;
            let target = if metadata.is_symlink() {
                Some(self.ext4.read_link(&entry.path())?.display().to_string())
            } else {
                None
            };
            let kind = if metadata.is_dir() {
                "folder"
            } else if metadata.is_symlink() {
                "link"
            } else {
                "file"
            };
            items.push(FolderItem {
                name,
                kind,
                mode: format!("{:04o}", metadata.mode() & 0o7777),
                uid: metadata.uid(),
                gid: metadata.gid(),
                bytes: metadata.len(),
                target,
            });
        }
        // ext4 lists by the hashes of names.
        items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }
}

/// Why there is no file system to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenRootError {
    #[error("cannot read the disk")]
    Disk(#[from] std::io::Error),
    #[error("it holds no ext4 file system")]
    Ext4(#[from] Ext4Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_image_gives_a_terminal_no_orders() {
        let item = FolderItem {
            name: "a\u{1b}[2J\nb".to_owned(),
            kind: "link",
            mode: "0777".to_owned(),
            uid: 0,
            gid: 0,
            bytes: 1,
            target: Some("\u{1b}]0;owned\u{7}".to_owned()),
        };

        assert_eq!(
            item.to_string(),
            "0777     0     0            1  a\\u{1b}[2J\\u{a}b -> \\u{1b}]0;owned\\u{7}"
        );
    }
}
