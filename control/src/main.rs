//! The `ringway` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway::cli::main()
}
