//! See `fuzz::targets::tls_sniff`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::tls_sniff::run(bytes));
