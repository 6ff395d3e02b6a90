//! The cable between one machine and the switch: what passes, how late, and what was counted.
//!
//! Knows what a person may do to a cable: cut it, slow it, make it lose frames. Refuses to know where a frame goes.
//! A cable does to a frame the same in both directions, so that a round trip over one slow cable costs its delay
//! twice. Invariant: for each frame that did not pass, one counter says why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seeded_random::SeededRandom;

/// Loss is counted in thousandths of a percent, since a percent is coarse for a frame that rarely gets lost.
const LOSS_SCALE: u64 = 100_000;

/// A longer delay would only fill the queue: TCP gives up by then.
pub const MAX_DELAY: Duration = Duration::from_mins(1);

/// Whether a cable is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Nothing passes in either direction
    Cut,
    /// Frames pass
    #[default]
    Whole,
}

/// A share of frames, in thousandths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LossRate(u32);

impl LossRate {
    /// The rate of so many percent; none outside of 0 to 100.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 100000")]
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 1000.0).round() as u32))
    }

    /// The rate in percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// What a cable does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CableState {
    /// Whether it is plugged in
    pub link: LinkState,
    /// How long a frame is under way
    pub delay: Duration,
    /// How many frames get lost by chance
    pub loss: LossRate,
    /// How many of the next frames get lost for sure
    pub drop_next: u32,
}

/// Why a frame did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameLoss {
    /// The loss rate hit it
    Chance,
    /// The cable is cut
    Cut,
    /// It was one of those that were to be dropped
    Dropped,
    /// Too short to have addresses, or for the neighbour only
    Invalid,
    /// Too many frames wait for the machine
    Overflow,
}

/// What a port has seen, as seen from the machine: `sent` left it, `received` reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the variants of `FrameLoss`")]
pub struct PortStatistics {
    pub sent_frames: u64,
    pub sent_bytes: u64,
    pub received_frames: u64,
    pub received_bytes: u64,
    pub lost_by_chance: u64,
    pub lost_by_cut: u64,
    pub lost_by_drop: u64,
    pub lost_by_overflow: u64,
    pub invalid: u64,
}

impl PortStatistics {
    /// Counts a frame that did not pass.
    pub fn count_loss(&mut self, loss: FrameLoss) {
        *match loss {
            FrameLoss::Chance => &mut self.lost_by_chance,
            FrameLoss::Cut => &mut self.lost_by_cut,
            FrameLoss::Dropped => &mut self.lost_by_drop,
            FrameLoss::Invalid => &mut self.invalid,
            FrameLoss::Overflow => &mut self.lost_by_overflow,
        } += 1;
    }
}

impl CableState {
    /// Sends one frame through, and says how long it takes or why it does not pass.
    pub fn carry_frame(&mut self, random: &mut SeededRandom) -> Result<Duration, FrameLoss> {
        if self.link == LinkState::Cut {
            return Err(FrameLoss::Cut);
        }
        if self.drop_next > 0 {
            self.drop_next -= 1;
            return Err(FrameLoss::Dropped);
        }
        // No draw without a rate: a cable that loses nothing leaves the others' fortunes as they are.
        if self.loss.0 > 0 && random.number_below(LOSS_SCALE) < u64::from(self.loss.0) {
            return Err(FrameLoss::Chance);
        }
        Ok(self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_rate_is_met() {
        let loss = LossRate::from_percent(12.5).unwrap();
        let mut cable = CableState { loss, ..CableState::default() };
        let mut random = SeededRandom::from_seed(7);

        let lost = (0..100_000).filter(|_| cable.carry_frame(&mut random).is_err()).count();

        assert!((12_000..13_000).contains(&lost), "{lost}");
    }

    #[test]
    fn a_loss_of_everything_and_of_nothing_are_exact() {
        let mut random = SeededRandom::from_seed(7);
        for (percent, passes) in [(0.0, 1000), (100.0, 0)] {
            let loss = LossRate::from_percent(percent).unwrap();
            let mut cable = CableState { loss, ..CableState::default() };

            let passed = (0..1000).filter(|_| cable.carry_frame(&mut random).is_ok()).count();

            assert_eq!(passed, passes);
        }
    }

    #[test]
    fn a_rate_outside_of_a_hundred_percent_is_none() {
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(LossRate::from_percent(percent), None, "{percent}");
        }
    }

    #[test]
    fn frames_to_be_dropped_are_counted_down() {
        let mut cable = CableState { drop_next: 2, ..CableState::default() };
        let mut random = SeededRandom::from_seed(7);

        let fates: Vec<_> = (0..3).map(|_| cable.carry_frame(&mut random)).collect();

        assert_eq!(fates, [Err(FrameLoss::Dropped), Err(FrameLoss::Dropped), Ok(Duration::ZERO)]);
    }
}
