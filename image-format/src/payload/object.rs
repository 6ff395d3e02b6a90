//! The files that a release's payload is made of, by their content.
//!
//! Knows names and digests. Refuses to know where the files lie. Invariant: an object that passed
//! [`ObjectReference::check_bytes`] has exactly the bytes that the index means, before anything parses them.

use crate::digest::{Sha256, to_hex};

/// Which kind of object, which is also the folder it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Blocks that need nothing but themselves.
    Chunk,
    /// What needs an older release.
    Patch,
}

/// An object of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its length.
    pub bytes: u32,
    /// The digest of its bytes as they travel, compressed.
    pub sha256: Sha256,
}

impl ObjectReference {
    /// The reference to these bytes, unless they are too many for any object.
    #[must_use]
    pub fn to_bytes(kind: ObjectKind, bytes: &[u8]) -> Option<Self> {
        Some(Self { kind, bytes: u32::try_from(bytes.len()).ok()?, sha256: Sha256::digest_of(bytes) })
    }

    /// Its path below the repository.
    #[must_use]
    pub fn repository_path(&self) -> String {
        let folder = match self.kind {
            ObjectKind::Chunk => "chunk",
            ObjectKind::Patch => "patch",
        };
        // 256 folders, since some file systems and people slow down at many thousand names in one.
        format!("{folder}/{}/{}", to_hex(&self.sha256.as_bytes()[..1]), self.sha256)
    }

    /// Whether these are the bytes.
    pub fn check_bytes(&self, given: &[u8]) -> Result<(), CheckObjectError> {
        if given.len() as u64 != u64::from(self.bytes) {
            return Err(CheckObjectError::Length { given: given.len(), needed: self.bytes });
        }
        let actual = Sha256::digest_of(given);
        if actual == self.sha256 { Ok(()) } else { Err(CheckObjectError::Digest { actual }) }
    }
}

/// Why bytes are not the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum CheckObjectError {
    #[error("its digest is {actual}, which is not its name")]
    Digest { actual: Sha256 },
    #[error("it has {given} bytes, but the index says {needed}")]
    Length { given: usize, needed: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_lies_where_its_digest_says_and_nothing_else_passes_for_it() {
        let object = ObjectReference::to_bytes(ObjectKind::Patch, b"").unwrap();

        assert_eq!(
            object.repository_path(),
            "patch/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(object.check_bytes(b""), Ok(()));
        assert_eq!(object.check_bytes(b"x"), Err(CheckObjectError::Length { given: 1, needed: 0 }));
    }
}
