//! The command line of `ringway-proxy`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use policy::limits;
use runtime::kernel::Choice;

/// The data plane of Ringway: an HTTP and TCP proxy that reads Envoy's bootstrap format.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ringway-proxy",
    version,
    after_help = "Example: ringway-proxy -c bootstrap.yaml --workers 2"
)]
pub struct Args {
    /// Bootstrap file, YAML or JSON, in Envoy's format.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: PathBuf,

    /// Worker threads [default: 1 for a sidecar, else the CPUs of the affinity mask and cgroup quota].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=limits::WORKERS_MAX as i64))]
    pub workers: Option<u16>,

    /// Give each worker a CPU of its own [default, except for a sidecar].
    #[arg(long, overrides_with = "no_pin")]
    pub pin: bool,

    /// Let the kernel place the workers.
    #[arg(long)]
    pub no_pin: bool,

    /// Kernel interface of the workers; auto takes io_uring where it works.
    #[arg(long, value_enum, default_value_t = IoChoice::Auto)]
    pub io: IoChoice,

    /// Where the last good configuration is kept [default: $XDG_STATE_HOME/ringway, /var/lib/ringway for root].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// What is logged to standard error: a level, or tracing directives such as `info,dataplane::xds=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,

    /// Write the access log to a file, or to standard output for `-`.
    #[arg(long, value_name = "PATH")]
    pub access_log: Option<PathBuf>,

    /// How long connections may take to end after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// Drain and exit when standard input ends: whoever holds its other end cannot leave a proxy behind.
    #[arg(long)]
    pub exit_on_stdin_eof: bool,

    /// Check the bootstrap file and exit.
    #[arg(long)]
    pub validate: bool,

    /// Write the bootstrap file as binary protobuf to standard output; what the proxy runs to spare its own memory.
    #[arg(long, hide = true)]
    pub parse_bootstrap: bool,
}

/// `--io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum IoChoice {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or an error.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

impl From<IoChoice> for Choice {
    fn from(choice: IoChoice) -> Choice {
        match choice {
            IoChoice::Auto => Choice::Auto,
            IoChoice::IoUring => Choice::IoUring,
            IoChoice::Epoll => Choice::Epoll,
        }
    }
}

impl Args {
    /// The folder of the last good configuration; `None` when there is no place to keep it.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The owner of this is the user that the process runs as.
        let is_root = fs::metadata("/proc/self").is_ok_and(|owner| owner.uid() == 0);
        self.data_dir
            .clone()
            .or_else(|| default_data_dir(is_root, variable("XDG_STATE_HOME"), variable("HOME")))
    }
}

fn default_data_dir(is_root: bool, state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if is_root {
        return Some(Path::new("/var/lib/ringway").to_owned());
    }
    Some(state_home.or_else(|| Some(home?.join(".local/state")))?.join("ringway"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["ringway-proxy"].iter().chain(arguments))
    }

    #[test]
    fn the_command_line_is_consistent_and_its_defaults_are_as_documented() {
        Args::command().debug_assert();
        let args = parse(&["-c", "b.yaml"]).unwrap();
        assert_eq!((args.io, args.drain_timeout), (IoChoice::Auto, Duration::from_secs(30)));
        assert_eq!((args.workers, args.pin, args.no_pin, args.validate), (None, false, false, false));
        let args =
            parse(&["-c", "b", "--workers", "2", "--io", "io_uring", "--drain-timeout", "500ms"]).unwrap();
        assert_eq!((args.workers, args.io), (Some(2), IoChoice::IoUring));
        assert_eq!(args.drain_timeout, Duration::from_millis(500));
        for bad in [&[][..], &["-c", "b", "--workers", "0"], &["-c", "b", "--io", "select"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn state_is_kept_where_the_user_keeps_state() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(default_data_dir(true, path("/s"), path("/h")), path("/var/lib/ringway"));
        assert_eq!(default_data_dir(false, path("/s"), path("/h")), path("/s/ringway"));
        assert_eq!(default_data_dir(false, None, path("/h")), path("/h/.local/state/ringway"));
        assert_eq!(default_data_dir(false, None, None), None);
    }
}
