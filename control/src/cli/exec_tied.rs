//! The hidden command by which a child ties itself to its parent; see [`crate::sidecar::tied`].

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use super::output;
use crate::sidecar::tied;

/// Exit codes of a shell for a program that cannot be started, and for one that is not there.
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Whose child, and which program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ringway exec-tied $$ -- sleep 60")]
pub(super) struct Args {
    /// Process id of the parent: the program gets SIGTERM when it is gone
    parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}")]
struct ExecError {
    program: String,
    #[source]
    source: io::Error,
}

/// Becomes the program.
pub(super) fn run(args: &Args) -> ExitCode {
    let Some((program, arguments)) = args.program.split_first() else { return ExitCode::from(CANNOT_START) };
    let source = tied::exec(args.parent, program, arguments);
    let code = if source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START };
    output::print_error(&ExecError { program: program.to_string_lossy().into_owned(), source });
    ExitCode::from(code)
}
