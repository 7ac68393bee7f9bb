//! See `fuzz::targets::hpack`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::hpack::run(bytes));
