//! See `fuzz::targets::chunk`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::chunk::run(bytes));
