//! DER, as far as a signature needs it: a tag, a length, and what is in it.
//!
//! Refuses to know what elements mean, and to believe a length: what is longer than its parent is no element.
//!
//! Documentation: ITU-T X.690.

/// An element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// What is in it: other elements, or bytes.
    pub(super) content: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads one, and says what follows it.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        // The tag says what it is, but here its place does.
        let (_tag, rest) = bytes.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if length & 0x80 != 0 {
            // The length of the length. DER knows no other form, and no program has four gigabytes of signature.
            let count = length & 0x7f;
            let (digits, behind) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        Some((Self { content }, behind))
    }

    /// The elements in it, up to the first that is none.
    pub(super) fn children(&self) -> impl Iterator<Item = Self> + use<'a> {
        let mut rest = self.content;
        std::iter::from_fn(move || {
            let (element, behind) = Self::read(rest)?;
            rest = behind;
            Some(element)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_in_short_and_in_long_form() {
        let long = [&[0x04, 0x81, 0x80][..], &[7; 128]].concat();
        let both = [&[0x02, 0x01, 0x05][..], &long].concat();
        let outer = Element { content: &both };

        let lengths: Vec<usize> = outer.children().map(|element| element.content.len()).collect();

        assert_eq!(lengths, [1, 128]);
    }

    #[test]
    fn an_element_that_is_longer_than_its_parent_is_none() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x05, 0],
            &[0x30, 0x80],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0x82, 1],
        ] {
            assert_eq!(Element::read(bytes), None, "{bytes:?}");
        }
    }
}
