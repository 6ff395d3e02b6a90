//! Keys that sign releases: made, kept and read.
//!
//! A secret key is a file that only its owner may read, and is never overwritten. A build that is given none
//! signs with a development key, which the cache keeps: it signs every such build on this computer, and whoever
//! reads it can sign for all of their machines. Therefore these say so at each login.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use image_format::signed::{KeyId, ParseKeyError, PublicKey, SecretKey};

/// The files of a key pair.
#[derive(Debug, serde::Serialize)]
pub(crate) struct KeyPair {
    pub(crate) id: String,
    pub(crate) secret: PathBuf,
    pub(crate) public: PathBuf,
}

/// Makes a key pair in `directory`; refuses if there is one of that name.
pub(crate) fn create_pair(directory: &Path, name: &str, comment: &str) -> Result<KeyPair, KeyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Write { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    let (secret, public) = (directory.join(format!("{name}.key")), directory.join(format!("{name}.pub")));
    for path in [&secret, &public] {
        if path.exists() {
            return Err(KeyError::Exists { path: path.clone() });
        }
    }
    let key = random_key()?;
    let named = key.public_key(comment);
    let write = |path: &Path, mode: u32, text: String| -> io::Result<()> {
        // With its rights from the first moment, and never over a file that is there: open(2), `O_EXCL`.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write(&secret, 0o600, key.to_text()).map_err(failed(&secret))?;
    write(&public, 0o644, named.to_text()).map_err(failed(&public))?;
    Ok(KeyPair { id: named.key_id().to_string(), secret, public })
}

/// A key that exists only as long as the program runs.
pub(crate) fn random_key() -> Result<SecretKey, KeyError> {
    let mut seed = [0; 32];
    // getrandom(2) waits until the kernel has entropy, unlike /dev/urandom.
    getrandom::fill(&mut seed).map_err(|error| KeyError::Random { source: io::Error::other(error) })?;
    Ok(SecretKey::from_seed(&seed))
}

/// Reads a secret key; refuses one that others may read.
pub(crate) fn read_secret(path: &Path) -> Result<SecretKey, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    // As ssh(1) does with private keys: a mode that others can read by is a mistake that is best told at
    // once.
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    text.parse().map_err(|source| KeyError::Parse { path: path.to_owned(), source })
}

/// Reads a public key.
pub(crate) fn read_public(path: &Path) -> Result<PublicKey, KeyError> {
    let text = fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| KeyError::Parse { path: path.to_owned(), source })
}

/// The file name of a public key inside an image.
pub(crate) fn file_name(id: KeyId) -> String {
    format!("{id}.pub")
}

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("{path} exists; a key that has signed something must not be lost. Choose another folder")]
    Exists { path: PathBuf },
    #[error(
        "{path} may be read by others (mode {mode:o}), so it is no secret; make it private: chmod 600 {path}"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} is no key file")]
    Parse { path: PathBuf, source: ParseKeyError },
    #[error("the kernel gave no random numbers for a key")]
    Random { source: io::Error },
    #[error("cannot read the key {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key {path}")]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_private_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();

        let pair = create_pair(directory.path(), "release", "test").unwrap();

        assert_eq!(read_secret(&pair.secret).unwrap().public_key("test"), read_public(&pair.public).unwrap());
        assert_eq!(fs::metadata(&pair.secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create_pair(directory.path(), "release", "again"), Err(KeyError::Exists { .. })));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pair = create_pair(directory.path(), "release", "test").unwrap();
        fs::set_permissions(&pair.secret, fs::Permissions::from_mode(0o644)).unwrap();

        assert!(matches!(read_secret(&pair.secret), Err(KeyError::Open { mode: 0o644, .. })));
    }
}
