//! See `fuzz::targets::proxy_proto`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::proxy_proto::run(bytes));
