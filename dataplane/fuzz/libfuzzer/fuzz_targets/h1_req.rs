//! See `fuzz::targets::h1_req`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::h1_req::run(bytes));
