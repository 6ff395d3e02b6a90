//! The hours in which the machine may restart, in locksmith's grammar.
//!
//! `REBOOT_WINDOW_START=Thu 04:00` or `04:00`, `REBOOT_WINDOW_LENGTH=1h30m`
//! (<https://github.com/coreos/locksmith#reboot-windows>). Pure: knows weeks and minutes, and is told what time it
//! is on the machine. Invariant: a clock that jumps moves the machine into the window or out of it, and never makes
//! it wait longer than until the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
const WEEK: u64 = 7 * DAY;

/// Seconds since the beginning of the week, which is Sunday at midnight, in the machine's own time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WeekTime(u64);

/// When the machine may restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RebootWindow {
    /// From the beginning of the week, or of each day.
    start: u64,
    /// After how long it comes again: a week or a day.
    period: u64,
    length: u64,
}

/// Why a window is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseWindowError {
    #[error("REBOOT_WINDOW_LENGTH is {given:?}, which is not a positive length like 1h30m")]
    Length { given: String },
    #[error("REBOOT_WINDOW_START is {given:?}, which is not a time like 04:00 or Thu 04:00")]
    Start { given: String },
}

impl WeekTime {
    /// Reads what `date '+%w %H %M %S'` prints.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [day, hour, minute, second] = numbers[..] else { return None };
        let in_day = hour * 60 * MINUTE + minute * MINUTE + second;
        (day < 7 && in_day < DAY).then_some(Self(day * DAY + in_day))
    }
}

impl RebootWindow {
    /// Reads the two settings.
    pub(crate) fn parse(start: &str, length: &str) -> Result<Self, ParseWindowError> {
        let bad_start = || ParseWindowError::Start { given: start.to_owned() };
        let (day, time) = match start.trim().split_once(' ') {
            Some((day, time)) => (Some(parse_day(day).ok_or_else(bad_start)?), time),
            None => (None, start.trim()),
        };
        let time = parse_time(time.trim()).ok_or_else(bad_start)?;
        let seconds =
            parse_length(length.trim()).map(|length| length.as_secs()).filter(|seconds| *seconds > 0);
        Ok(Self {
            start: day.unwrap_or(0) * DAY + time,
            period: if day.is_some() { WEEK } else { DAY },
            length: seconds.ok_or_else(|| ParseWindowError::Length { given: length.to_owned() })?,
        })
    }

    /// How long until the window opens; nothing while it is open.
    pub(crate) fn wait_until_open(&self, now: WeekTime) -> Duration {
        let since = (now.0 + self.period - self.start % self.period) % self.period;
        if since < self.length { Duration::ZERO } else { Duration::from_secs(self.period - since) }
    }
}

fn parse_day(word: &str) -> Option<u64> {
    let word = word.to_ascii_lowercase();
    (0..).zip(DAYS).find(|(_, day)| *day == word).map(|(index, _)| index)
}

fn parse_time(text: &str) -> Option<u64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str, below: u64| {
        let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|number| is_plain && *number < below)
    };
    Some(number(hour, 24)? * 60 * MINUTE + number(minute, 60)? * MINUTE)
}

/// A duration as Go prints it (time.ParseDuration): numbers with units, added up.
pub(crate) fn parse_length(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        seconds += number * scale;
        rest = &rest[end + unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WeekTime {
        WeekTime::parse(text).unwrap()
    }

    fn window(start: &str, length: &str) -> RebootWindow {
        RebootWindow::parse(start, length).unwrap()
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_daily_window_opens_each_day() {
        let window = window("23:30", "1h");

        assert_eq!(window.wait_until_open(at("3 23 30 00")), Duration::ZERO);
        assert_eq!(window.wait_until_open(at("4 00 29 59")), Duration::ZERO);
        assert_eq!(window.wait_until_open(at("4 00 30 00")), HOUR * 23);
        assert_eq!(window.wait_until_open(at("0 00 10 00")), Duration::ZERO, "over the end of the week");
    }

    #[test]
    fn a_weekly_window_opens_once_a_week() {
        let window = window("Thu 04:00", "1h30m");

        assert_eq!(window.wait_until_open(at("4 05 29 00")), Duration::ZERO);
        assert_eq!(window.wait_until_open(at("4 03 00 00")), HOUR);
        assert_eq!(window.wait_until_open(at("4 06 00 00")), HOUR * (24 * 7 - 2));
    }

    #[test]
    fn a_window_longer_than_its_period_is_always_open() {
        for hour in 0..24 {
            assert_eq!(window("4:00", "24h").wait_until_open(at(&format!("2 {hour} 0 0"))), Duration::ZERO);
        }
    }

    /// Case 54: the clock jumps across the window; the machine waits for the next one and no longer.
    #[test]
    fn no_time_of_the_week_waits_longer_than_the_period() {
        for start in ["sat 23:59", "00:00"] {
            let window = window(start, "1m");
            for second in (0..WEEK).step_by(977) {
                assert!(window.wait_until_open(WeekTime(second)).as_secs() < window.period);
            }
        }
    }

    #[test]
    fn what_locksmith_refuses_is_refused() {
        for start in ["24:00", "4", "Xyz 4:00", "4:60", "", "+4:00", "Thu"] {
            assert!(RebootWindow::parse(start, "1h").is_err(), "{start:?}");
        }
        for length in ["", "1", "h", "1d", "0s", "-1h", "1e400h"] {
            assert!(RebootWindow::parse("4:00", length).is_err(), "{length:?}");
        }
        assert_eq!(parse_length("1.5h"), Some(Duration::from_mins(90)));
        assert_eq!(WeekTime::parse("7 00 00 00"), None);
        assert_eq!(WeekTime::parse("six"), None);
    }
}
