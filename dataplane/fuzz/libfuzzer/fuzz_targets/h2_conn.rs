//! See `fuzz::targets::h2_conn`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::h2_conn::run(bytes));
