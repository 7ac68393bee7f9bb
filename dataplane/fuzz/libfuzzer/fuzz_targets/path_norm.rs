//! See `fuzz::targets::path_norm`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::path_norm::run(bytes));
