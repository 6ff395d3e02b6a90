//! Waves: which share of the machines may have a release, and from when on.
//!
//! Knows shares and a machine's place among all. Refuses to know the clock and how many machines there are:
//! no server counts them. Invariant: a machine's place depends on its identity alone, so that the machines
//! which go first are the same for each release, and an operator can know them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::UnixTime;
use crate::digest::Sha256;

/// A share of all machines, in thousandths: 1 of 1000 machines is the smallest first wave that one can ask for.
// Whole numbers: a share as a float would have many texts, and would be signed as one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Share(u16);

impl Share {
    /// All machines.
    pub const ALL: Self = Self(1000);

    /// So many of 1000 machines, unless that is more than all.
    #[must_use]
    pub fn per_mille(thousandths: u16) -> Option<Self> {
        (thousandths <= Self::ALL.0).then_some(Self(thousandths))
    }

    /// Whether the machine at this place is among them.
    #[must_use]
    pub const fn includes_place(self, place: WavePlace) -> bool {
        place.0 < self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{} %", self.0 / 10),
            tenth => write!(f, "{}.{tenth} %", self.0 / 10),
        }
    }
}

/// A percentage with at most one digit after the point, such as `1%`, `0.5%` or `100`.
impl FromStr for Share {
    type Err = ParseShareError;

    fn from_str(text: &str) -> Result<Self, ParseShareError> {
        let wrong = || ParseShareError { given: text.chars().take(16).collect() };
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(tenth) || whole.len() > 3 || tenth.len() > 1 {
            return Err(wrong());
        }
        let number = |part: &str| part.parse::<u16>().map_err(|_| wrong());
        Self::per_mille(number(whole)? * 10 + number(tenth)?).ok_or_else(wrong)
    }
}

impl TryFrom<u16> for Share {
    type Error = ParseShareError;

    fn try_from(thousandths: u16) -> Result<Self, ParseShareError> {
        Self::per_mille(thousandths)
            .ok_or_else(|| ParseShareError { given: format!("{thousandths} of 1000") })
    }
}

impl From<Share> for u16 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// A text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no share of the machines: write 0% to 100%, such as 0.5%, 10% or 100%")]
pub struct ParseShareError {
    given: String,
}

/// One wave. Shares add up: the 20 % of a second wave include the 5 % of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// All machines that may have it by then, in thousandths.
    pub machines: Share,
    /// When they may.
    pub not_before: UnixTime,
}

/// Where a machine stands among all machines, from 0 to 999: the first go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct WavePlace(u16);

impl WavePlace {
    /// The machine that goes before all others: for one that an operator wants to see first.
    pub const FIRST: Self = Self(0);
    /// The machine that goes after all others.
    pub const LAST: Self = Self(999);

    /// The place of a machine by its machine-id. The digest has a prefix of its own, so that the place tells
    /// nothing about other values that are derived from the id (machine-id(5) asks for that).
    #[must_use]
    pub fn of_machine(machine_id: &str) -> Self {
        let digest = Sha256::digest_of(format!("catamaran-wave-1\n{}", machine_id.trim()).as_bytes());
        // 64 bits by 1000: the first places are favoured by less than one in 10^16.
        let number = digest.as_bytes()[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Self(u16::try_from(number % 1000).unwrap_or_default())
    }

    /// A place, unless there is none of that number.
    #[must_use]
    pub fn new(place: u16) -> Option<Self> {
        (place < 1000).then_some(Self(place))
    }
}

impl TryFrom<u16> for WavePlace {
    type Error = ParseShareError;

    fn try_from(place: u16) -> Result<Self, ParseShareError> {
        Self::new(place).ok_or_else(|| ParseShareError { given: format!("place {place} of 1000") })
    }
}

impl From<WavePlace> for u16 {
    fn from(place: WavePlace) -> Self {
        place.0
    }
}

/// When a machine may have a release of these waves; never, if no wave includes it yet.
#[must_use]
pub fn opening_time(waves: &[Wave], place: WavePlace) -> Option<UnixTime> {
    if waves.is_empty() {
        return Some(UnixTime::default());
    }
    waves.iter().find(|wave| wave.machines.includes_place(place)).map(|wave| wave.not_before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(percent: &str, not_before: u64) -> Wave {
        Wave { machines: percent.parse().unwrap(), not_before: UnixTime::from_seconds(not_before) }
    }

    #[test]
    fn a_share_is_a_percentage() {
        for (text, thousandths, printed) in
            [("0%", 0, "0 %"), ("0.5%", 5, "0.5 %"), ("12", 120, "12 %"), ("100%", 1000, "100 %")]
        {
            let share: Share = text.parse().unwrap();
            assert_eq!((u16::from(share), share.to_string().as_str()), (thousandths, printed));
        }
        for text in ["", "%", "100.1%", "101", "-1", "1.25%", "1.", ".5", "1e1", "NaN", "+1", "9999999999"] {
            assert!(text.parse::<Share>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_wave_seed_is_stable_across_updates() {
        let id = "0123456789abcdef0123456789abcdef";

        assert_eq!(WavePlace::of_machine(id), WavePlace::of_machine(&format!("{id}\n")));
        // This number must never change: with it, the canaries of every fleet would.
        assert_eq!(u16::from(WavePlace::of_machine(id)), 34);
    }

    #[test]
    fn a_share_gets_about_that_share_of_the_machines() {
        let share: Share = "10%".parse().unwrap();

        let count = (0..10_000)
            .filter(|number| share.includes_place(WavePlace::of_machine(&format!("{:032x}", number * 7919))))
            .count();

        assert!((900..1100).contains(&count), "{count} of 10000");
    }

    #[test]
    fn a_machine_may_from_the_first_wave_that_includes_it() {
        let waves = [wave("1%", 100), wave("50%", 200)];
        let at = |place| opening_time(&waves, WavePlace::new(place).unwrap()).map(UnixTime::seconds);

        assert_eq!(
            [at(0), at(9), at(10), at(499), at(500)],
            [Some(100), Some(100), Some(200), Some(200), None]
        );
        assert_eq!(opening_time(&[], WavePlace::LAST), Some(UnixTime::default()));
    }
}
