//! Keeps both stores of etcd in a folder of their own, by the day.
//!
//! Knows the folder's files and what makes a copy whole. Refuses to choose a member to ask: its caller does.
//! Invariants: a folder with its final name is whole and was read back; a copy is root's alone, since it has every
//! secret that programs keep in etcd.
//!
//! | file | what |
//! |---|---|
//! | `backup.json` | when, of which cluster and revision, and the digests of the others |
//! | `etcd.db` | the store of version 3, as `etcdutl snapshot restore` takes it |
//! | `keys-v2.json` | the keys of version 2, which no snapshot has |

pub mod classic;
mod retention;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::derive::encode_hex;
use crate::etcd_client::{CallError, EtcdClient, decode_number};
use classic::{ClassicEntry, read_classic};
pub use retention::{list_backups, remove_oldest};

/// The store of version 3.
pub const MODERN_FILE: &str = "etcd.db";
/// The keys of version 2.
pub const CLASSIC_FILE: &str = "keys-v2.json";
const MANIFEST_FILE: &str = "backup.json";
/// A snapshot ends with the digest of what stands before it.
const DIGEST_BYTES: u64 = 32;
/// Beside the copy itself: etcd's log must still find a place while it is written.
const SPARE_BYTES: u64 = 80 << 20;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum BackupError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("cannot list {path}")]
    List { path: PathBuf, source: io::Error },
    #[error("{path} is no backup: it has no readable {MANIFEST_FILE}")]
    NoBackup { path: PathBuf },
    #[error(
        "the backup needs {needed} MiB, but only {free} MiB are free at {path}; remove an old one, or write it \
         elsewhere with --to"
    )]
    Space { path: PathBuf, needed: u64, free: u64 },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// 1.
    pub format: u8,
    /// When it was made.
    pub taken_at: Timestamp,
    /// The number of etcd's cluster.
    pub cluster_id: u64,
    /// etcd's version.
    pub etcd_version: String,
    /// The revision of the store of version 3, at least.
    pub revision: u64,
    /// The store of version 3.
    pub modern: KeptFile,
    /// The keys of version 2; `None` where etcd does not serve them.
    pub classic: Option<KeptFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// How long it is.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// A backup on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: BackupManifest,
}

/// Copies both stores of a member into a new folder below `parent`.
pub fn take_backup(
    client: &EtcdClient,
    endpoint: &str,
    parent: &Path,
    now: Timestamp,
) -> Result<Backup, BackupError> {
    let status = client.call(endpoint, "maintenance/status", &json!({}))?;
    create_folder(parent)?;
    check_space(parent, decode_number(&status["dbSize"]))?;
    let name = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let new = parent.join([&name, ".new"].concat());
    // What a power cut left.
    match fs::remove_dir_all(&new) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(write_error(&new, source)),
        _ => {}
    }
    create_folder(&new)?;
    // The old keys first: what is written to them meanwhile is in neither copy, as if it came later.
    let classic = read_classic(client, endpoint)?;
    let classic = classic.map(|entries| write_classic(&new, &entries)).transpose()?;
    let modern = write_modern(client, endpoint, &new)?;
    let manifest = BackupManifest {
        format: 1,
        taken_at: now,
        cluster_id: decode_number(&status["header"]["cluster_id"]),
        etcd_version: status["version"].as_str().unwrap_or_default().to_owned(),
        revision: decode_number(&status["header"]["revision"]),
        modern,
        classic,
    };
    let text = format!("{:#}\n", json!(manifest));
    write_file(&new.join(MANIFEST_FILE), text.as_bytes())?;
    read_backup(&new)?;
    let folder = parent.join(&name);
    fs::rename(&new, &folder).map_err(|source| write_error(&folder, source))?;
    sync_folder(parent)?;
    Ok(Backup { folder, manifest })
}

/// Reads a backup, each byte of it, and compares the digests.
pub fn read_backup(folder: &Path) -> Result<Backup, BackupError> {
    let manifest = read_manifest(folder)?;
    let kept = [(MODERN_FILE, Some(&manifest.modern)), (CLASSIC_FILE, manifest.classic.as_ref())];
    for (name, kept) in kept {
        let Some(kept) = kept else { continue };
        let path = folder.join(name);
        let actual = digest_file(&path)?;
        if actual != *kept {
            return Err(BackupError::Damaged { path, what: "its digest is not the one in backup.json" });
        }
    }
    Ok(Backup { folder: folder.to_owned(), manifest })
}

/// What a backup says of itself, without a look at the rest.
pub fn read_manifest(folder: &Path) -> Result<BackupManifest, BackupError> {
    let text = fs::read_to_string(folder.join(MANIFEST_FILE)).ok();
    let manifest = text.and_then(|text| serde_json::from_str::<BackupManifest>(&text).ok());
    manifest
        .filter(|manifest| manifest.format == 1)
        .ok_or_else(|| BackupError::NoBackup { path: folder.to_owned() })
}

/// The keys of version 2 in a backup.
pub fn kept_entries(backup: &Backup) -> Result<Vec<ClassicEntry>, BackupError> {
    if backup.manifest.classic.is_none() {
        return Ok(Vec::new());
    }
    let path = backup.folder.join(CLASSIC_FILE);
    let damaged = |what| BackupError::Damaged { path: path.clone(), what };
    let text = fs::read(&path).map_err(|_| damaged("it cannot be read"))?;
    serde_json::from_slice(&text).map_err(|_| damaged("it is no list of keys"))
}

fn write_classic(folder: &Path, entries: &[ClassicEntry]) -> Result<KeptFile, BackupError> {
    let path = folder.join(CLASSIC_FILE);
    let text = format!("{:#}\n", json!(entries));
    write_file(&path, text.as_bytes())?;
    digest_file(&path)
}

/// Writes the snapshot, and checks the digest that etcd put behind it: a stream that broke off has none.
fn write_modern(client: &EtcdClient, endpoint: &str, folder: &Path) -> Result<KeptFile, BackupError> {
    let path = folder.join(MODERN_FILE);
    let failed = |source| write_error(&path, source);
    let mut file = new_file(&path).map_err(failed)?;
    client.read_snapshot(endpoint, &mut |piece| file.write_all(piece))?;
    file.sync_all().map_err(failed)?;
    check_snapshot(&path)?;
    digest_file(&path)
}

/// Whether a file is a whole snapshot of etcd's: pages of 512 bytes and more, and their digest.
fn check_snapshot(path: &Path) -> Result<(), BackupError> {
    let damaged = |what| BackupError::Damaged { path: path.to_owned(), what };
    let unread = |_| damaged("it cannot be read");
    let file = File::open(path).map_err(unread)?;
    let length = file.metadata().map_err(unread)?.len();
    if length % 512 != DIGEST_BYTES {
        return Err(damaged("its length is not that of a snapshot"));
    }
    let mut reader = BufReader::new(file);
    let (actual, _) = digest(&mut reader.by_ref().take(length - DIGEST_BYTES)).map_err(unread)?;
    let mut expected = Vec::new();
    reader.read_to_end(&mut expected).map_err(unread)?;
    if encode_hex(&expected) == actual {
        Ok(())
    } else {
        Err(damaged("its digest is not the one that etcd sent"))
    }
}

fn digest_file(path: &Path) -> Result<KeptFile, BackupError> {
    let unread = |_| BackupError::Damaged { path: path.to_owned(), what: "it cannot be read" };
    let mut file = File::open(path).map_err(unread)?;
    let (sha256, bytes) = digest(&mut file).map_err(unread)?;
    Ok(KeptFile { bytes, sha256 })
}

fn digest(reader: &mut dyn io::Read) -> io::Result<(String, u64)> {
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((encode_hex(context.finish().as_ref()), length)),
            count => {
                context.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

fn check_space(folder: &Path, store_bytes: u64) -> Result<(), BackupError> {
    // A file system that does not say how full it is says so when it is written to.
    let Ok(statistics) = nix::sys::statvfs::statvfs(folder) else { return Ok(()) };
    let free = statistics.blocks_available().saturating_mul(statistics.fragment_size());
    let needed = store_bytes + SPARE_BYTES;
    if free >= needed {
        return Ok(());
    }
    Err(BackupError::Space { path: folder.to_owned(), needed: needed >> 20, free: free >> 20 })
}

fn create_folder(path: &Path) -> Result<(), BackupError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| write_error(path, source))
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), BackupError> {
    let written = new_file(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|source| write_error(path, source))
}

fn sync_folder(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_broke_off_or_was_changed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODERN_FILE);
        let pages = vec![7; 1024];
        let check = ring::digest::digest(&SHA256, &pages);
        let whole = [&pages[..], check.as_ref()].concat();
        let outcome = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            check_snapshot(&path).map_err(|error| error.to_string())
        };

        assert_eq!(outcome(&whole), Ok(()));
        assert!(outcome(&whole[..1024]).unwrap_err().contains("length"));
        let mut changed = whole;
        changed[3] = 8;
        assert!(outcome(&changed).unwrap_err().contains("digest"));
        assert!(outcome(b"").is_err());
    }

    #[test]
    fn a_folder_without_a_manifest_is_no_backup() {
        let folder = tempfile::tempdir().unwrap();

        let error = read_backup(folder.path()).unwrap_err().to_string();

        assert!(error.contains("is no backup"), "{error}");
    }
}
