//! The image piece by piece, from a file of any format or from a URL, as it comes in.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use disk_formats::bmap::encode_hex;
use disk_formats::disk::{ReadDisk, is_zero};
use disk_formats::open::Opened;
use disk_formats::piece::{self, PIECE_BYTES, Piece};
use disk_formats::stream::Compression;
use sha2::{Digest as _, Sha256};

/// How long a server may be silent before its first word.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the digest of a whole file will be asked for. It costs a pass over the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileHash {
    /// It will not.
    Unasked,
    /// It will.
    Wanted,
}

impl FileHash {
    /// The SHA-256 of the file, if it is wanted.
    pub fn of_file(self, path: &Path) -> io::Result<Option<String>> {
        match self {
            Self::Unasked => Ok(None),
            Self::Wanted => file_sha256(path).map(Some),
        }
    }
}

/// The SHA-256 of a file in hexadecimal.
pub fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = read_full(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(encode_hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// Fills the buffer as far as the stream goes.
pub fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Where pieces come from.
pub enum PieceStream {
    /// A disk that can be read anywhere.
    Disk {
        /// The disk.
        disk: Box<dyn ReadDisk>,
        /// The number of the next piece.
        next: u64,
        /// The digest of its file.
        sha256: Option<String>,
    },
    /// Bytes in order.
    Stream {
        /// What is left of it, decompressed.
        bytes: Box<dyn Read>,
        /// Where in the disk that is.
        at: u64,
        /// What was read of the file.
        fetched: Arc<FetchedBytes>,
        /// How long the file is.
        length: Option<u64>,
    },
}

/// What was fetched so far.
#[derive(Debug, Default)]
pub struct FetchedBytes {
    count: AtomicU64,
    hasher: Mutex<Sha256>,
}

/// Counts and hashes what passes.
struct FetchReader<R> {
    from: R,
    fetched: Arc<FetchedBytes>,
}

impl<R: Read> Read for FetchReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.fetched.count.fetch_add(read as u64, Ordering::Relaxed);
        self.fetched.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..read]);
        Ok(read)
    }
}

impl PieceStream {
    /// Whether the text names something to be fetched.
    #[must_use]
    pub fn is_url(image: &str) -> bool {
        image.starts_with("http://") || image.starts_with("https://")
    }

    /// What comes is decompressed as it comes; formats with tables at their end would have to be kept first.
    pub fn fetch(url: &str) -> io::Result<Self> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            // A server that is silent must not hold a machine for ever. The body may take as long as it takes.
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build()
            .into();
        let response = agent.get(url).call().map_err(io::Error::other)?;
        let length = response.body().content_length();
        Self::of_bytes(response.into_body().into_reader(), length)
    }

    /// A disk that can be read anywhere, and the SHA-256 of its file, if that will be asked for.
    #[must_use]
    pub const fn of_disk(disk: Box<dyn ReadDisk>, sha256: Option<String>) -> Self {
        Self::Disk { disk, next: 0, sha256 }
    }

    /// A compressed disk in a file, which is decompressed as it is read.
    pub fn of_compressed(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Self::of_bytes(file, Some(length))
    }

    /// A file of any format that is one disk: no archive.
    pub fn of_file(path: &Path, hash: FileHash) -> io::Result<Self> {
        match disk_formats::open::open_disk(File::open(path)?).map_err(io::Error::other)? {
            Opened::Stream(_) => Self::of_compressed(path),
            Opened::Disk(_, disk) => Ok(Self::of_disk(disk, hash.of_file(path)?)),
        }
    }

    /// Bytes in order, raw or compressed.
    fn of_bytes(from: impl Read + 'static, length: Option<u64>) -> io::Result<Self> {
        let fetched = Arc::new(FetchedBytes::default());
        let mut from = FetchReader { from, fetched: Arc::clone(&fetched) };
        let mut head = vec![0; 512];
        let read = read_full(&mut from, &mut head)?;
        head.truncate(read);
        let compression = Compression::detect_compression(&head);
        if compression.is_none()
            && [&b"QFI\xfb"[..], b"KDMV", b"vhdxfile", b"conectix"]
                .iter()
                .any(|magic| head.starts_with(magic))
        {
            return Err(io::Error::other(
                "it cannot be written as it comes: download it first, or take raw.zst, raw.xz, raw.gz or raw",
            ));
        }
        let whole = io::Cursor::new(head).chain(from);
        let bytes: Box<dyn Read> = match compression {
            Some(compression) => compression.open_decoder(whole)?,
            None => Box::new(whole),
        };
        Ok(Self::Stream { bytes, at: 0, fetched, length })
    }

    /// The next piece; none behind the last.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        match self {
            Self::Disk { disk, next, .. } => {
                if *next >= piece::count_pieces(disk.disk_size()) {
                    return Ok(None);
                }
                *next += 1;
                Piece::read(disk.as_ref(), *next - 1).map(Some)
            }
            Self::Stream { bytes, at, .. } => {
                let mut buffer = vec![0; PIECE_BYTES];
                let length = read_full(bytes, &mut buffer)?;
                if length == 0 {
                    return Ok(None);
                }
                let piece =
                    Piece { offset: *at, length, data: (!is_zero(&buffer)).then(|| Arc::new(buffer)) };
                *at += length as u64;
                Ok(Some(piece))
            }
        }
    }

    /// How far it is: in the disk where its size is known, else in what is fetched.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        match self {
            Self::Disk { disk, next, .. } => {
                ((next * PIECE_BYTES as u64).min(disk.disk_size()), disk.disk_size())
            }
            Self::Stream { fetched, length, .. } => {
                let count = fetched.count.load(Ordering::Relaxed);
                (count, length.unwrap_or(count))
            }
        }
    }

    /// The SHA-256 of the file as it was fetched, once all of it was.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        match self {
            Self::Disk { sha256, .. } => sha256.clone(),
            Self::Stream { fetched, .. } => {
                let hasher = fetched.hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Some(encode_hex(&hasher.finalize()))
            }
        }
    }
}

impl std::fmt::Debug for PieceStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PieceStream").field("position", &self.position()).finish_non_exhaustive()
    }
}
