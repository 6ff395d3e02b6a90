//! Fuzzes the reading of a spec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = image_builder::check_spec(&String::from_utf8_lossy(bytes));
});
