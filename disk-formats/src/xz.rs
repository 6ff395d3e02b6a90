//! Numbers as the xz format writes them.

/// Seven bits a byte, the lowest first (xz-file-format 1.2).
pub(crate) fn write_xz_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push((number & 0x7f) as u8);
}

/// A number and the bytes that it took.
pub(crate) fn read_xz_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_xz_are_read_as_written() {
        for number in [0, 127, 128, 16_383, 16_384, u64::from(u32::MAX), (1 << 63) - 1] {
            let mut bytes = Vec::new();
            write_xz_number(&mut bytes, number);
            assert_eq!(read_xz_number(&bytes), Some((number, bytes.len())));
        }
        assert_eq!(read_xz_number(&[0x80; 12]), None);
    }
}
