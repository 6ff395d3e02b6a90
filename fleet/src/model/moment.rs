//! Time as decisions know it: an argument, not a clock.
//!
//! Invariant: a moment says nothing of the time of day, and only those of one process can be compared.

use std::{ops::Add, time::Duration};

/// A point in time on a clock that never goes back, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The start of the clock.
    pub const START: Self = Self(0);

    /// So many milliseconds after the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    // Saturating: two threads may read the clock in another order than they compare it, and a short span is
    // a better answer than a panic.
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}
