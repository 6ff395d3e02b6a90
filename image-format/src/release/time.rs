//! Moments as documents write them: whole seconds since 1970.
//!
//! Knows how a moment is written for people, and that a clock may lie. Refuses to know the clock.
//! Invariant: arithmetic stops at the last moment there is, and never goes round.
//!
//! Documentation: RFC 3339, and <https://howardhinnant.github.io/date_algorithms.html>.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A moment in UTC.
// Whole seconds and no text: one moment has one spelling, and no calendar is needed to compare two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
        let (year, month, day) = civil_date(self.0 / DAY);
        let second = self.0 % DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The Gregorian date of a day since 1970-01-01, counted in years that begin in March, so that the odd day of a
/// leap year comes last (`civil_from_days` of Howard Hinnant's `chrono`-compatible date algorithms). A date library is
/// too much for one `Display` in a crate that is to stay small.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
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
        assert!(!last.to_string().is_empty());
    }
}
