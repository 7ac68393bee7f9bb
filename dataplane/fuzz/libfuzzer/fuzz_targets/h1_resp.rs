//! See `fuzz::targets::h1_resp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::h1_resp::run(bytes));
