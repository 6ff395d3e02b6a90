//! Numbers that look random and are the same for the same seed.
//!
//! Knows `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>): eight bytes of state, no dependency, and good
//! enough to choose which write or frame is lost. Refuses to make secrets. Invariant: a seed that found a fault
//! finds it again, on every machine and in every later version.

/// The numbers of one seed.
#[derive(Debug, Clone)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// The numbers of `seed`.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `limit`; 0 if there is none. The modulo prefers small numbers by
    /// less than one in 2^32 for the limits used here, which no test can see.
    pub fn number_below(&mut self, limit: u64) -> u64 {
        self.next_number().checked_rem(limit).unwrap_or(0)
    }

    /// True half of the time.
    pub fn flip_coin(&mut self) -> bool {
        self.next_number() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = SeededRandom::from_seed(1_234_567);

        // The test vector that Java's and Rust's implementations share.
        let numbers = [random.next_number(), random.next_number(), random.next_number()];

        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_limit_is_never_reached() {
        let mut random = SeededRandom::from_seed(1);

        assert!((0..1000).all(|_| random.number_below(3) < 3));
        assert_eq!(random.number_below(0), 0);
    }
}
