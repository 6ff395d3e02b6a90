//! A size, so that a number of bytes is never mistaken for a number of sectors.
//!
//! Knows the binary units; refuses to know what is being measured.
//! Invariant: arithmetic that could overflow returns `None`.

use std::fmt;

/// Bytes of a sector. Disks with 4096-byte logical sectors are not supported: neither are they by
/// the selector, whose places are counted in these.
pub const SECTOR: Bytes = Bytes::new(512);
/// Every partition begins at a multiple of this.
// What partition tools use: a multiple of all common blocks of disks and arrays.
pub const ALIGNMENT: Bytes = Bytes::MIB;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// One kibibyte.
    pub const KIB: Self = Self(1 << 10);
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);
    /// One gibibyte.
    pub const GIB: Self = Self(1 << 30);

    /// That many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many mebibytes, capped at the largest size there is.
    #[must_use]
    pub const fn from_mib(count: u64) -> Self {
        Self(count.saturating_mul(Self::MIB.0))
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, unless it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The smallest multiple of `unit` that holds this size, unless it does not fit.
    #[must_use]
    pub fn round_up(self, unit: Self) -> Option<Self> {
        self.0.checked_next_multiple_of(unit.0).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(Self::GIB, "GiB"), (Self::MIB, "MiB"), (Self::KIB, "KiB")];
        let exact = units.into_iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(unit.0));
        match exact {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit.0),
            // A rounded size in a message about a disk would hide by how much it misses.
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn a_size_prints_in_the_largest_unit_that_divides_it() {
        let printed = [0, 1023, 1024, 5 << 20, 3 << 30].map(|n| Bytes::new(n).to_string());

        assert_eq!(printed, ["0 bytes", "1023 bytes", "1 KiB", "5 MiB", "3 GiB"]);
    }

    #[test]
    fn rounding_up_past_the_largest_size_is_refused() {
        assert_eq!(Bytes::new(u64::MAX).round_up(Bytes::MIB), None);
        assert_eq!(Bytes::new(1).round_up(Bytes::MIB), Some(Bytes::MIB));
    }
}
