//! How an installation goes, in words.

use std::time::Duration;

/// The rate so far, and how long the rest takes at it.
#[must_use]
pub fn rate_text(done: u64, total: u64, elapsed: Duration) -> String {
    let per_second = u128::from(done) * 1000 / elapsed.as_millis().max(1);
    let left = u128::from(total.saturating_sub(done)) / per_second.max(1);
    format!("{} MB/s, {left} s left", per_second / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_follows_from_the_rate() {
        assert_eq!(rate_text(50_000_000, 150_000_000, Duration::from_secs(2)), "25 MB/s, 4 s left");
        assert_eq!(rate_text(0, 10, Duration::ZERO), "0 MB/s, 10 s left");
    }
}
