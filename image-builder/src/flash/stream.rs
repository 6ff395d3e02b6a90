//! The image piece by piece, from a file of any format or from a URL, as it comes in.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use disk_formats::bmap::encode_hex;
use disk_formats::disk::{ReadDisk, is_zero};
use disk_formats::open::Opened;
use disk_formats::piece::{self, PIECE_BYTES, Piece};
use disk_formats::stream::Compression;
use sha2::{Digest as _, Sha256};

use crate::convert::ova::file_sha256;
use crate::source::{open_source, read_full};

/// Where pieces come from.
pub(crate) enum PieceStream {
    /// A disk that can be read anywhere.
    Disk { disk: Box<dyn ReadDisk>, next: u64, sha256: Option<String> },
    /// Bytes in order.
    Stream { bytes: Box<dyn Read>, at: u64, fetched: Arc<Fetched>, length: Option<u64> },
}

/// What was fetched so far.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    count: AtomicU64,
    hasher: Mutex<Sha256>,
}

/// Counts and hashes what passes.
struct FetchReader<R> {
    from: R,
    fetched: Arc<Fetched>,
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
    /// Opens a file or a URL. `hashed` says that the digest of the whole file will be asked for.
    pub(crate) fn open_source(image: &str, hashed: bool) -> io::Result<Self> {
        if image.starts_with("http://") || image.starts_with("https://") {
            return Self::fetch_url(image);
        }
        let path = Path::new(image);
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if let Opened::Stream(_) =
            disk_formats::open::open_disk(file.try_clone()?).map_err(io::Error::other)?
        {
            // From its beginning, wherever the one that looked at it is.
            return Self::of_bytes(File::open(path)?, Some(length));
        }
        let sha256 = if hashed { Some(file_sha256(path)?) } else { None };
        let disk = open_source(path).map_err(io::Error::other)?.disk;
        Ok(Self::Disk { disk, next: 0, sha256 })
    }

    /// What comes is decompressed as it comes; formats with tables at their end would have to be kept first.
    fn fetch_url(url: &str) -> io::Result<Self> {
        let response = ureq::get(url).call().map_err(io::Error::other)?;
        let length = response.body().content_length();
        Self::of_bytes(response.into_body().into_reader(), length)
    }

    fn of_bytes(from: impl Read + 'static, length: Option<u64>) -> io::Result<Self> {
        let fetched = Arc::new(Fetched::default());
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
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
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
    pub(crate) fn read_position(&self) -> (u64, u64) {
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
    pub(crate) fn file_digest(&self) -> Option<String> {
        match self {
            Self::Disk { sha256, .. } => sha256.clone(),
            Self::Stream { fetched, .. } => {
                let hasher = fetched.hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Some(encode_hex(&hasher.finalize()))
            }
        }
    }
}
