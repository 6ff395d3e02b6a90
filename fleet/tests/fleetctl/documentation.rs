//! The documentation has a row for everything that can be typed.

#[test]
fn placeholder() {}
