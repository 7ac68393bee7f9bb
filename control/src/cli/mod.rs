//! The command line: one file per command, each with its `Args` and a `run` that returns the exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod completion;
mod data_dir;
mod demo;
mod edges;
mod exec_tied;
mod gateway;
mod id;
mod join;
mod output;
mod progress;
mod proxy;
mod reference;
mod run;
mod serve;
mod status;
mod token;

/// Ringway: a service mesh for teams to whom the proxy's latency matters.
#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes are those that each command names; 2 if the command line is wrong.

Examples:
  ringway demo
  ringway serve --config ./mesh
  ringway run --name orders --port 8080 -- ./my-app
  ringway status --wait"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane on a directory of documents
    Serve(serve::Args),
    /// Show every proxy and whether the newest configuration is active in it
    Status(status::Args),
    /// Show who calls in plain text
    Edges(edges::Args),
    /// Run an application with a sidecar
    Run(run::Args),
    /// Run the proxy of a Gateway
    Gateway(gateway::Args),
    /// Make this machine one of a mesh whose control plane is elsewhere
    Join(join::Args),
    /// Make a token with which a host joins the mesh
    Token(token::Args),
    /// Show identities and their certificates
    Id(id::Args),
    /// Run a whole mesh on this machine and watch it
    Demo(demo::Args),
    /// Become a program that ends with its parent
    #[command(hide = true)]
    ExecTied(exec_tied::Args),
    /// Print the reference of every document kind, or write its JSON Schemas
    Reference(reference::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
}

/// Reads the arguments and runs the command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Status(args) => status::run(&args),
        Command::Edges(args) => edges::run(&args),
        Command::Run(args) => run::run(args),
        Command::Gateway(args) => gateway::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Id(args) => id::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::ExecTied(args) => exec_tied::run(&args),
        Command::Reference(args) => reference::run(&args),
        Command::Completion(args) => completion::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        assert!(Cli::command().render_long_help().to_string().contains("Examples:"));
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
