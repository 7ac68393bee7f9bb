//! See `fuzz::targets::downgrade`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::downgrade::run(bytes));
