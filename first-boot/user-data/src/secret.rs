//! Values that must not reach a log.
//!
//! Knows nothing but how to be silent. Invariant: `Debug` never shows what is inside; whoever needs
//! it writes [`Secret::reveal`], which can be searched for.

use std::fmt::{self, Formatter};

/// A content, password or key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_silent() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(secret)");
    }
}
