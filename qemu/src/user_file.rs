//! Reads the files that a person names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file of the user's that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub(crate) struct ReadError {
    path: PathBuf,
    source: io::Error,
}

/// Reads a file of the user's.
pub(crate) fn read_user_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    fs::read(path).map_err(|source| ReadError { path: path.into(), source })
}
