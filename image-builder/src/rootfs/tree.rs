//! An in-memory index of a file tree: attributes in memory, contents where they lie.
//!
//! Invariant: every path is relative, normalised and has its parents in the tree, so that a stream
//! written from it can be unpacked in order.
//!
//! Documentation: POSIX's pax, "pax Interchange Format", and tar(5).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Where a regular file's bytes are.
#[derive(Debug, Clone)]
pub(crate) enum FileContent {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file of the host, whole.
    HostFile { path: PathBuf, size: u64 },
    /// In the tar that the tree was read from.
    Tar { offset: u64, size: u64 },
}

impl FileContent {
    pub(crate) fn content_size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::HostFile { size, .. } | Self::Tar { size, .. } => *size,
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum EntryKind {
    Directory,
    File(FileContent),
    /// The path, inside the tree, of the entry this one is another name of.
    HardLink(String),
    Symlink(String),
}

/// One file system object.
#[derive(Debug, Clone)]
pub(crate) struct TreeEntry {
    pub(crate) kind: EntryKind,
    /// Permission bits, set-user-ID, set-group-ID and sticky included.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Extended attributes by name (`security.capability`).
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

impl TreeEntry {
    /// An object of root's.
    pub(crate) fn new(kind: EntryKind, mode: u32) -> Self {
        Self { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new() }
    }

    pub(crate) fn file(bytes: impl Into<Arc<[u8]>>, mode: u32) -> Self {
        Self::new(EntryKind::File(FileContent::Bytes(bytes.into())), mode)
    }

    pub(crate) fn symlink(target: &str) -> Self {
        Self::new(EntryKind::Symlink(target.to_owned()), 0o777)
    }
}

/// The tree. Paths have no leading slash; the root itself is the empty path and is not listed.
#[derive(Debug, Default)]
pub(crate) struct RootTree {
    entries: BTreeMap<String, TreeEntry>,
    tar: Option<PathBuf>,
}

impl RootTree {
    /// Indexes a tar file. Device nodes are left out: an image's /dev is the kernel's.
    pub(crate) fn from_tar(path: PathBuf) -> io::Result<Self> {
        let mut archive = tar::Archive::new(File::open(&path)?);
        let mut tree = Self::default();
        let mut extension = PaxRecords::default();
        // Raw, since the crate's own reader of extensions takes a line break in a value for its end.
        for entry in archive.entries_with_seek()?.raw(true) {
            let mut entry = entry?;
            if entry.header().entry_type().is_pax_local_extensions() {
                let mut records = Vec::new();
                entry.read_to_end(&mut records)?;
                extension = PaxRecords::parse_records(&records)?;
            } else {
                tree.add_tar_entry(&entry, std::mem::take(&mut extension))?;
            }
        }
        tree.tar = Some(path);
        Ok(tree)
    }

    fn add_tar_entry(&mut self, entry: &tar::Entry<'_, File>, extension: PaxRecords) -> io::Result<()> {
        let header = entry.header();
        let path = extension
            .path
            .map_or_else(|| entry.path().map(|path| path.to_string_lossy().into_owned()), Ok)?;
        let path = normalise_path(&path);
        if path.is_empty() {
            return Ok(());
        }
        let link = || match (extension.link, entry.link_name()) {
            (Some(link), _) => Ok(link),
            (None, Ok(link)) => Ok(link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()),
            (None, Err(error)) => Err(error),
        };
        let kind = match header.entry_type() {
            tar::EntryType::Directory => EntryKind::Directory,
            tar::EntryType::Link => EntryKind::HardLink(normalise_path(&link()?)),
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                EntryKind::File(FileContent::Tar { offset: entry.raw_file_position(), size: entry.size() })
            }
            tar::EntryType::Symlink => EntryKind::Symlink(link()?),
            _ => return Ok(()),
        };
        let (mode, uid, gid) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
        self.entries.insert(path, TreeEntry { kind, mode, uid, gid, xattrs: extension.xattrs });
        Ok(())
    }

    pub(crate) fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.entries.get(path)
    }

    #[cfg(test)]
    pub(crate) fn get_mut(&mut self, path: &str) -> Option<&mut TreeEntry> {
        self.entries.get_mut(path)
    }

    /// Every entry, parents before what they hold.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &TreeEntry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The entries below a directory, itself left out.
    pub(crate) fn entries_below(&self, directory: &str) -> impl Iterator<Item = (&str, &TreeEntry)> {
        let prefix = format!("{directory}/");
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// Puts an entry in, over what was there; parents that are missing become directories of root's.
    pub(crate) fn insert(&mut self, path: &str, entry: TreeEntry) {
        let mut end = 0;
        while let Some(slash) = path[end..].find('/') {
            end += slash;
            let parent = &path[..end];
            if !self.entries.contains_key(parent) {
                self.entries.insert(parent.to_owned(), TreeEntry::new(EntryKind::Directory, 0o755));
            }
            end += 1;
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Removes an entry and all below it.
    pub(crate) fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        let below: Vec<String> = self.entries_below(path).map(|(path, _)| path.to_owned()).collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// Keeps the entries the predicate wants. A hard link whose first name goes takes over its bytes.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str, &TreeEntry) -> bool) {
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.entries).into_iter().partition(|(path, entry)| wanted(path, entry));
        self.entries = kept;
        let mut heirs: BTreeMap<String, String> = BTreeMap::new();
        for (path, entry) in &mut self.entries {
            if let EntryKind::HardLink(target) = &entry.kind
                && let Some(first) = gone.get(target)
            {
                if let Some(heir) = heirs.get(target) {
                    entry.kind = EntryKind::HardLink(heir.clone());
                } else {
                    heirs.insert(target.clone(), path.clone());
                    *entry = first.clone();
                }
            }
        }
    }

    /// The bytes of a regular file, symbolic links not followed.
    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("/{path} is not in the tree"));
        match &self.entries.get(path).ok_or_else(missing)?.kind {
            EntryKind::File(content) => {
                let mut bytes = Vec::new();
                self.open_content(content)?.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            EntryKind::HardLink(target) => self.read(target),
            EntryKind::Directory | EntryKind::Symlink(_) => Err(missing()),
        }
    }

    /// The text of a regular file.
    pub(crate) fn read_text(&self, path: &str) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn open_content<'a>(&self, content: &'a FileContent) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match content {
            FileContent::Bytes(bytes) => Box::new(bytes.as_ref()),
            FileContent::HostFile { path, size } => Box::new(File::open(path)?.take(*size)),
            // Read when it is needed: a root of a GiB is not held in memory.
            FileContent::Tar { offset, size } => {
                let path =
                    self.tar.as_ref().ok_or_else(|| io::Error::other("the tree was not read from a tar"))?;
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Box::new(file.take(*size))
            }
        })
    }

    /// Writes the tree as a tar stream: in order, every time set to `mtime` (seconds since 1970), so that
    /// equal trees give equal bytes.
    pub(crate) fn write_tar(&self, output: impl Write, mtime: u64) -> io::Result<()> {
        let mut writer = TarWriter { output: io::BufWriter::with_capacity(1 << 20, output), mtime };
        let tar = self.tar.as_ref().map(File::open).transpose()?;
        let mut buffer = vec![0; 1 << 20];
        // The other names of a file come last: a reader must have met the first one.
        let (links, objects): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|(_, entry)| matches!(entry.kind, EntryKind::HardLink(_)));
        for (path, entry) in objects.into_iter().chain(links) {
            writer.write_header(path, entry)?;
            if let EntryKind::File(content) = &entry.kind {
                match (content, &tar) {
                    (FileContent::Tar { offset, size }, Some(tar)) => {
                        writer.copy_content(
                            &mut FileRange { file: tar, offset: *offset, left: *size },
                            *size,
                            &mut buffer,
                        )?;
                    }
                    _ => {
                        writer.copy_content(
                            &mut self.open_content(content)?,
                            content.content_size(),
                            &mut buffer,
                        )?;
                    }
                }
            }
        }
        // Two empty records end a tar, tar(5).
        writer.output.write_all(&[0; 1024])?;
        writer.output.flush()
    }
}

/// What a pax record before an entry says of it.
#[derive(Default)]
struct PaxRecords {
    path: Option<String>,
    link: Option<String>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl PaxRecords {
    /// Records `LENGTH KEY=VALUE\n`; the length counts the whole record, so a value may be any bytes.
    fn parse_records(mut records: &[u8]) -> io::Result<Self> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a pax record of the tar is malformed");
        let mut extension = Self::default();
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize = str::from_utf8(&records[..space])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(malformed)?;
            let record = records.get(space + 1..length).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let value = record[equals + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let text = || String::from_utf8_lossy(value).into_owned();
            match &record[..equals] {
                b"path" => extension.path = Some(text()),
                b"linkpath" => extension.link = Some(text()),
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        extension.xattrs.insert(String::from_utf8_lossy(name).into_owned(), value.to_vec());
                    }
                }
            }
            records = &records[length..];
        }
        Ok(extension)
    }
}

/// A stretch of a file, read without moving the file's cursor.
struct FileRange<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

struct TarWriter<W: Write> {
    output: io::BufWriter<W>,
    mtime: u64,
}

impl<W: Write> TarWriter<W> {
    fn write_header(&mut self, path: &str, entry: &TreeEntry) -> io::Result<()> {
        let mut extensions = Vec::new();
        let name =
            if matches!(entry.kind, EntryKind::Directory) { format!("{path}/") } else { path.to_owned() };
        let mut header = tar::Header::new_ustar();
        let (kind, link, size) = match &entry.kind {
            EntryKind::Directory => (tar::EntryType::Directory, None, 0),
            EntryKind::File(content) => (tar::EntryType::Regular, None, content.content_size()),
            EntryKind::HardLink(target) => (tar::EntryType::Link, Some(target), 0),
            EntryKind::Symlink(target) => (tar::EntryType::Symlink, Some(target), 0),
        };
        // Names that do not fit the old header go into a pax record; the header keeps what fits.
        if header.set_path(&name).is_err() {
            pax_record(&mut extensions, "path", name.as_bytes());
            header.set_path(&name[..name.floor_char_boundary(99)])?;
        }
        if let Some(link) = link
            && header.set_link_name_literal(link).is_err()
        {
            pax_record(&mut extensions, "linkpath", link.as_bytes());
        }
        for (name, value) in &entry.xattrs {
            pax_record(&mut extensions, &format!("SCHILY.xattr.{name}"), value);
        }
        if !extensions.is_empty() {
            self.write_extension(&extensions)?;
        }
        header.set_entry_type(kind);
        header.set_size(size);
        self.finish_header(&mut header, entry.mode, entry.uid, entry.gid)
    }

    fn write_extension(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path("pax")?;
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(records.len() as u64);
        self.finish_header(&mut header, 0o644, 0, 0)?;
        self.output.write_all(records)?;
        self.pad_record(records.len() as u64)
    }

    fn finish_header(&mut self, header: &mut tar::Header, mode: u32, uid: u64, gid: u64) -> io::Result<()> {
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(self.mtime);
        header.set_cksum();
        self.output.write_all(header.as_bytes())
    }

    fn copy_content(&mut self, content: &mut dyn Read, size: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = content.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a file became shorter while it was read",
                ));
            }
            self.output.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        self.pad_record(size)
    }

    fn pad_record(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default();
        self.output.write_all(&[0; 512][..padding])
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits (POSIX pax).
fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    // A further digit may make the length longer than it says.
    while length.to_string().len() + rest != length {
        length += 1;
    }
    records.extend(format!("{length} {key}=").into_bytes());
    records.extend(value);
    records.push(b'\n');
}

/// A path without `.` and leading slashes; `..` is dropped, never followed.
fn normalise_path(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(tree: &RootTree) -> RootTree {
        let file = tempfile::NamedTempFile::new().unwrap();
        tree.write_tar(file.as_file(), 7).unwrap();
        RootTree::from_tar(file.into_temp_path().keep().unwrap()).unwrap()
    }

    #[test]
    fn a_tree_survives_its_tar() {
        let mut tree = RootTree::default();
        let long = format!("usr/{}/{}", "d".repeat(120), "f".repeat(120));
        tree.insert(&long, TreeEntry::file(*b"deep", 0o4755));
        tree.get_mut(&long).unwrap().xattrs.insert("security.capability".to_owned(), vec![1, 0, b'\n']);
        tree.insert("bin", TreeEntry::symlink("usr/bin"));

        let again = round_trip(&tree);

        assert_eq!(again.read(&long).unwrap(), b"deep");
        assert_eq!(again.get(&long).unwrap().mode, 0o4755);
        assert_eq!(again.get(&long).unwrap().xattrs["security.capability"], [1, 0, b'\n']);
        assert!(matches!(&again.get("bin").unwrap().kind, EntryKind::Symlink(target) if target == "usr/bin"));
    }

    #[test]
    fn a_hard_link_outlives_its_first_name() {
        let mut tree = RootTree::default();
        tree.insert("usr/bin/perl", TreeEntry::file(*b"perl", 0o755));
        tree.insert("usr/bin/perl5", TreeEntry::new(EntryKind::HardLink("usr/bin/perl".to_owned()), 0o755));

        tree.retain(|path, _| path != "usr/bin/perl");

        assert_eq!(tree.read("usr/bin/perl5").unwrap(), b"perl");
    }

    #[test]
    fn a_path_cannot_leave_the_tree() {
        assert_eq!(normalise_path("./../etc//passwd"), "etc/passwd");
    }

    #[test]
    fn removing_a_directory_leaves_its_namesakes() {
        let mut tree = RootTree::default();
        tree.insert("a/x", TreeEntry::file(*b"", 0o644));
        tree.insert("a-b", TreeEntry::file(*b"", 0o644));

        tree.remove("a");

        assert_eq!(tree.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["a-b"]);
    }
}
