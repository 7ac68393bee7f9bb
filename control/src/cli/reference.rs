//! `ringway reference`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::document::reference;

/// Where to.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0, or 1 if the schemas cannot be written.\n\nExamples:\n  ringway reference | less\n  ringway reference --schema ~/.local/share/ringway/schema"
)]
pub(super) struct Args {
    /// Write a JSON Schema per document kind, for editors, into this directory instead
    #[arg(long, value_name = "DIR")]
    schema: Option<PathBuf>,
}

/// Prints the reference, or writes the schemas.
pub(super) fn run(args: &Args) -> ExitCode {
    let Some(directory) = &args.schema else {
        print!("{}", reference::markdown());
        return ExitCode::SUCCESS;
    };
    let written = fs::create_dir_all(directory).and_then(|()| {
        reference::schema_files().iter().try_for_each(|(name, text)| fs::write(directory.join(name), text))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
