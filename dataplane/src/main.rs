//! `ringway-proxy`: the data plane's program.

fn main() {}
