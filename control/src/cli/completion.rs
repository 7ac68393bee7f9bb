//! `ringway completion SHELL`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringway completion bash > ~/.local/share/bash-completion/completions/ringway\n  \
                        ringway completion zsh > ~/.zfunc/_ringway"
)]
pub(super) struct Args {
    /// The shell to complete for
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &Args) -> ExitCode {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "ringway", &mut std::io::stdout());
    ExitCode::SUCCESS
}
