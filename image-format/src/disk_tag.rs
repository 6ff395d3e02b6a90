//! The tag of a disk: what tells the disk that the selector runs from from a copy of it.
//!
//! A copy has the same bytes, so nothing that was on the disk before can tell the two apart. The
//! selector therefore writes: it counts the tag up in the slot table of its own disk, and hands the
//! new tag to the initramfs, which takes the disk that holds it. A copy still holds the old one.
//! The agent renews the random half at every complete boot, so that copies that were started on
//! their own do not count to the same tag, and nobody who reads a command line knows the next one.
//! Knows the tag's text. Refuses to know where it is stored, and to make random bytes.
//! Invariant: every text has one tag, every tag one text of 34 bytes.

use std::fmt;
use std::str::FromStr;

use crate::digest::to_hex;

/// Bytes of the random half.
pub const ID_BYTES: usize = 16;
/// The count starts again behind 9: GRUB's scripts cannot add, only look up the digit that follows.
const COUNTS: u8 = 10;

/// A random number and a count of the boots since it was made.
// Considered: the partition's GUID (a copy has it), the firmware's device path (GRUB for BIOS has none), a
// mark of one bit (a copy that was made after a crash has it), a random number that stays (a copy has it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DiskTag {
    id: [u8; ID_BYTES],
    boots: u8,
}

impl DiskTag {
    /// The tag of an image: the same in all its copies until they are started.
    pub const UNSET: Self = Self { id: [0; ID_BYTES], boots: 0 };

    /// A new tag with these random bytes, before its first boot.
    #[must_use]
    pub const fn new(id: [u8; ID_BYTES]) -> Self {
        Self { id, boots: 0 }
    }

    /// The tag that the selector writes at the next boot.
    #[must_use]
    pub const fn next_boot(self) -> Self {
        Self { boots: (self.boots + 1) % COUNTS, ..self }
    }

    /// Whether it is still the image's, whatever the count.
    #[must_use]
    pub fn is_of_image(&self) -> bool {
        self.id == Self::UNSET.id
    }

    /// Whether a new one is due: it is the image's, or the selector has counted it up and handed it
    /// on by a command line that everyone on the machine can read.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_of_image() || self.boots != 0
    }
}

impl fmt::Display for DiskTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", to_hex(&self.id), self.boots)
    }
}

/// The text is no tag of a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the tag of a disk: 32 lower-case hexadecimal digits, a dot and one decimal digit")]
pub struct ParseDiskTagError {
    given: String,
}

impl FromStr for DiskTag {
    type Err = ParseDiskTagError;

    fn from_str(text: &str) -> Result<Self, ParseDiskTagError> {
        read(text.as_bytes()).ok_or_else(|| ParseDiskTagError { given: text.chars().take(64).collect() })
    }
}

fn read(text: &[u8]) -> Option<DiskTag> {
    let (digits, rest) = text.split_at_checked(2 * ID_BYTES)?;
    let [b'.', count @ b'0'..=b'9'] = rest else { return None };
    // Upper case would be a second text of the same tag, and the selector compares texts.
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut id = [0; ID_BYTES];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(DiskTag { id, boots: count - b'0' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_its_text() {
        let tag = DiskTag::new([0xab; ID_BYTES]).next_boot();

        assert_eq!(tag.to_string(), "abababababababababababababababab.1");
        assert_eq!(tag.to_string().parse(), Ok(tag));
        assert_eq!(DiskTag::UNSET.to_string(), "00000000000000000000000000000000.0");
    }

    #[test]
    fn what_is_not_exactly_a_tag_is_refused() {
        let good = DiskTag::new([0xab; ID_BYTES]).to_string();
        for text in
            ["", ".0", &good[1..], &good.to_uppercase(), &format!("{good}1"), &good.replace('.', ":"), "é"]
        {
            assert!(text.parse::<DiskTag>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn each_boot_counts_the_tag_up_and_ten_come_round() {
        let tags: Vec<DiskTag> =
            std::iter::successors(Some(DiskTag::UNSET), |tag| Some(tag.next_boot())).take(11).collect();

        assert_eq!(tags[0], tags[10]);
        assert_eq!(tags[..10].iter().collect::<std::collections::HashSet<_>>().len(), 10);
        assert!(tags.iter().all(DiskTag::is_used), "an image's tag is always due for a new one");
        let own = DiskTag::new([1; ID_BYTES]);
        assert!(!own.is_used() && own.next_boot().is_used());
    }
}
