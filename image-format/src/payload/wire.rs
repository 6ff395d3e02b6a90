//! Numbers and byte strings as the payload index writes them.
//!
//! Knows LEB128 numbers, fixed fields and the end of the input. Refuses to know what they mean.
//! Invariant: a number has one spelling, so equal indexes are equal bytes.
//!
//! Documentation: LEB128 in the DWARF standard, section 7.6.

/// Why the bytes end or mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireError {
    /// The input ended inside a field.
    End,
    /// A number is longer than 64 bits, or than it needs to be.
    Number,
}

/// Reads fields, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn read_bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireError::End)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::End)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn fixed_u32(&mut self) -> Result<u32, WireError> {
        self.read_array().map(u32::from_le_bytes)
    }

    /// A LEB128 number: seven bits a byte, the lowest first.
    pub(crate) fn read_number(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.read_array()?;
            let bits = u64::from(byte & 0x7f);
            // Bits that are shifted out, and a last byte of zero, would be second spellings.
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(WireError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Number)
    }

    /// A number that fits 32 bits.
    pub(crate) fn read_u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.read_number()?).map_err(|_| WireError::Number)
    }
}

/// Appends a LEB128 number.
pub(crate) fn put_number(into: &mut Vec<u8>, mut value: u64) {
    loop {
        let bits = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            into.push(bits);
            return;
        }
        into.push(bits | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_survives_its_bytes(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_number(&mut bytes, value);
            let mut reader = Reader::new(&bytes);

            prop_assert_eq!(reader.read_number(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(Reader::new(&[0x80, 0]).read_number(), Err(WireError::Number));
        assert_eq!(Reader::new(&[0xff; 10]).read_number(), Err(WireError::Number));
        assert_eq!(Reader::new(&[0x80]).read_number(), Err(WireError::End));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).read_u32(), Err(WireError::Number));
    }
}
