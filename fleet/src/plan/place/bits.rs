//! Sets of machines as one bit each, in the order of machine IDs.
//!
//! Knows how to combine sets by words, which makes a question about all machines cost as little as one
//! about a few. Refuses to know what a position stands for. Invariant: what was never set is not in.

/// A set of positions.
#[derive(Debug, Clone, Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
}

// A vector of words and no compressed set: five thousand machines are 79 words, which one pass reads faster
// than any structure finds its way.
const WIDTH: usize = u64::BITS as usize;

impl BitSet {
    /// Puts a position in, or takes it out.
    pub(super) fn set_member(&mut self, position: usize, member: bool) {
        let (word, bit) = (position / WIDTH, 1 << (position % WIDTH));
        if member {
            if self.words.len() <= word {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= bit;
        } else if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Makes room at a position: it is not in, and what was there and behind moves on by one.
    pub(super) fn make_room(&mut self, position: usize) {
        let (first, below) = (position / WIDTH, (1_u64 << (position % WIDTH)) - 1);
        // A machine that is new shifts those behind it. That happens once in the life of a machine, while
        // the sets are read with each decision.
        if self.words.last().is_some_and(|word| word >> (WIDTH - 1) == 1) {
            self.words.push(0);
        }
        let mut carry = 0;
        for (index, word) in self.words.iter_mut().enumerate().skip(first) {
            let stays = if index == first { *word & below } else { 0 };
            let moves = *word & !stays;
            *word = stays | moves << 1 | carry;
            carry = moves >> (WIDTH - 1);
        }
    }

    /// Keeps what is in the other set too.
    pub(super) fn intersect_with(&mut self, other: &Self) {
        self.words.truncate(other.words.len());
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Takes out what is in the other set.
    pub(super) fn subtract_set(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    /// Puts in what is in the other set.
    pub(super) fn unite_with(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// The positions that are in both sets, from the first on.
    pub(super) fn iter_common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let common = self.words.iter().zip(&other.words).map(|(one, other)| one & other).enumerate();
        common.filter(|(_, word)| *word != 0).flat_map(|(index, word)| {
            let rest =
                std::iter::successors(Some(word), |word| Some(word & (word - 1)).filter(|word| *word != 0));
            rest.map(move |word| index * WIDTH + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(positions: &[usize]) -> BitSet {
        let mut bits = BitSet::default();
        for &position in positions {
            bits.set_member(position, true);
        }
        bits
    }

    fn list(bits: &BitSet) -> Vec<usize> {
        bits.iter_common(bits).collect()
    }

    #[test]
    fn sets_combine() {
        let (one, other) = (of(&[0, 63, 64, 200]), of(&[63, 64, 65]));
        let combined = |act: fn(&mut BitSet, &BitSet)| {
            let mut bits = one.clone();
            act(&mut bits, &other);
            list(&bits)
        };

        assert_eq!(one.iter_common(&other).collect::<Vec<_>>(), [63, 64]);
        assert_eq!(combined(BitSet::intersect_with), [63, 64]);
        assert_eq!(combined(BitSet::subtract_set), [0, 200]);
        assert_eq!(combined(BitSet::unite_with), [0, 63, 64, 65, 200]);
    }

    #[test]
    fn room_moves_what_is_behind() {
        for position in 0..260 {
            let members = [0, 1, 62, 63, 64, 127, 128, 191];
            let mut bits = of(&members);

            bits.make_room(position);

            let moved = members.map(|member| if member >= position { member + 1 } else { member });
            assert_eq!(list(&bits), moved, "at {position}");
        }
    }
}
