//! Moments as documents write them: whole seconds since 1970.
//!
//! Knows how a moment is written for people, and that a clock may lie. Refuses to know the clock.
//! Invariant: arithmetic stops at the last moment there is, and never goes round.
//!
//! Documentation: RFC 3339.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment in UTC.
// Whole seconds and no text: one moment has one spelling, and no calendar is needed to compare two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// So many seconds after 1970 began.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970 began.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// So much later, or the last moment there is.
    #[must_use]
    pub const fn saturating_add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.as_secs()))
    }

    /// How long it is until `later`; nothing, if that has passed.
    #[must_use]
    pub const fn duration_until(self, later: Self) -> Duration {
        Duration::from_secs(later.0.saturating_sub(self.0))
    }
}

/// As RFC 3339 writes it, to the second.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339 has four digits for the year, so what lies behind 9999 is written as the end of it.
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX).min(Timestamp::MAX.as_second());
        Timestamp::from_second(seconds).unwrap_or_default().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_as_rfc_3339_writes_it() {
        // Each second number is from `date -u -d TEXT +%s`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_825_359, "2026-11-28T00:22:39Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(UnixTime::from_seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn the_last_moment_has_no_successor() {
        let last = UnixTime::from_seconds(u64::MAX);

        assert_eq!(last.saturating_add(Duration::from_secs(1)), last);
        assert_eq!(last.duration_until(UnixTime::default()), Duration::ZERO);
        assert_eq!(last.to_string(), "9999-12-30T22:00:00Z");
    }
}
