//! The files inside a `.deb`, read without dpkg.
//!
//! Source: `deb(5)`, `ar(5)`: an ar archive whose member `data.tar`, plain or as `.xz` or `.zst`, holds the files.

use std::io::{self, Read};

/// The largest unpacked package that is read, so that a forged one cannot fill the memory.
const UNPACKED_LIMIT: u64 = 1 << 30;

/// Where the members start, and how long a member's header is.
const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// The package's files as a tar stream.
pub(crate) fn open_data(deb: &[u8]) -> Result<Box<dyn Read + '_>, DebError> {
    let mut rest = deb.strip_prefix(MAGIC).ok_or(DebError::Magic)?;
    while rest.len() >= HEADER {
        let (header, body) = rest.split_at(HEADER);
        let size = member_size(header).filter(|size| *size <= body.len()).ok_or(DebError::Truncated)?;
        let name = String::from_utf8_lossy(&header[..16]).trim_end().trim_end_matches('/').to_owned();
        if let Some(compression) = name.strip_prefix("data.tar") {
            return decompress_member(compression, &body[..size]);
        }
        // ar(5): members begin at even places.
        rest = body.get(size + size % 2..).unwrap_or_default();
    }
    Err(DebError::NoData)
}

fn member_size(header: &[u8]) -> Option<usize> {
    std::str::from_utf8(header.get(48..58)?).ok()?.trim().parse().ok()
}

fn decompress_member<'a>(compression: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, DebError> {
    Ok(match compression {
        "" => Box::new(bytes),
        // xz is what Debian's packages use, and zstd what Ubuntu's do.
        ".xz" => Box::new(lzma_rust2::XzReader::new(bytes, true).take(UNPACKED_LIMIT)),
        ".zst" => Box::new(zstd::Decoder::new(bytes).map_err(DebError::Decompress)?.take(UNPACKED_LIMIT)),
        other => return Err(DebError::Compression { name: other.to_owned() }),
    })
}

/// Why a package could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebError {
    #[error("not a Debian package: it does not start with an ar header")]
    Magic,
    #[error("the package ends in the middle of a member")]
    Truncated,
    #[error("the package has no data.tar")]
    NoData,
    #[error("the package's files are compressed in a way this program does not read: {name}")]
    Compression { name: String },
    #[error("cannot decompress the package's files")]
    Decompress(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).into_bytes();
        bytes.extend(body);
        bytes.extend(vec![b'\n'; body.len() % 2]);
        bytes
    }

    #[test]
    fn the_data_member_is_found_behind_odd_sized_ones() {
        let deb = [MAGIC.to_vec(), member("debian-binary", b"2.0"), member("data.tar", b"files")].concat();

        let mut text = String::new();
        open_data(&deb).unwrap().read_to_string(&mut text).unwrap();

        assert_eq!(text, "files");
    }

    #[test]
    fn a_member_longer_than_the_file_is_refused() {
        let mut deb = [MAGIC.to_vec(), member("data.tar", b"files")].concat();
        deb.truncate(deb.len() - 3);

        assert!(matches!(open_data(&deb), Err(DebError::Truncated)));
    }
}
