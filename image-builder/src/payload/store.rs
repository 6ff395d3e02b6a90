//! The objects of a repository, in files named by their digest.
//!
//! Knows how a file appears at once. Refuses to know which objects belong to which release.
//! Invariants: a file under an object's name has the object's bytes; what is there is never written again, so that a
//! server may serve it meanwhile.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use image_format::payload::object::{ObjectKind, ObjectReference};
use image_format::payload::reconstruct::ObjectSource;

use super::WritePayloadError;

/// A repository's objects.
#[derive(Debug)]
pub(crate) struct ObjectStore {
    root: PathBuf,
    new_bytes: AtomicU64,
}

impl ObjectStore {
    /// Opens a repository, or begins one.
    pub(crate) fn open_store(repository: &Path) -> Result<Self, WritePayloadError> {
        let root = repository.to_owned();
        fs::create_dir_all(&root)
            .map_err(|source| WritePayloadError::Write { path: root.clone(), source })?;
        Ok(Self { root, new_bytes: AtomicU64::new(0) })
    }

    /// Bytes of the objects that were not there before.
    pub(super) fn new_bytes(&self) -> u64 {
        self.new_bytes.load(Ordering::Relaxed)
    }

    /// Whether the repository has it, by its length: `release verify` reads the bytes.
    pub(super) fn has_object(&self, object: &ObjectReference) -> bool {
        let found = fs::metadata(self.root.join(object.repository_path()));
        found.is_ok_and(|found| found.len() == u64::from(object.bytes))
    }

    /// Puts an object into the repository.
    pub(super) fn put_object(
        &self,
        kind: ObjectKind,
        bytes: &[u8],
    ) -> Result<ObjectReference, WritePayloadError> {
        let object = ObjectReference::to_bytes(kind, bytes).ok_or(WritePayloadError::TooLarge)?;
        if !self.has_object(&object) {
            let path = self.root.join(object.repository_path());
            write_whole(&path, bytes).map_err(|source| WritePayloadError::Write { path, source })?;
            self.new_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(object)
    }
}

impl ObjectSource for ObjectStore {
    fn mirrors(&self) -> usize {
        1
    }

    fn fetch_object(&self, object: &ObjectReference, _mirror: usize) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(object.repository_path()))
    }
}

/// A publish that is interrupted leaves at most a file of another name, which `release gc` removes.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    let file = file.persist(path).map_err(|error| error.error)?;
    set_readable(&file)
}

/// A temporary file is its owner's alone; a web server runs as somebody else.
fn set_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}
