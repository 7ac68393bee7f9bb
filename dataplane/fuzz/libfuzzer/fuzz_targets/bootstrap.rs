//! See `fuzz::targets::bootstrap`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::bootstrap::run(bytes));
