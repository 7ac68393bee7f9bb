//! `ringway-proxy`: the data plane's program.

use std::{backtrace::Backtrace, panic, path::PathBuf, process::ExitCode};

use clap::Parser;
use dataplane::{
    args::Args,
    bootstrap::{self, Bootstrap},
    control_thread::{self, Options},
    xds::transport::chain,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // As when the program was loaded, should the loader not know of it. A refusal costs memory and nothing else.
    let _ = runtime::memory::avoid_huge_pages();
    let args = Args::parse();
    if args.parse_bootstrap {
        return bootstrap::run_child(&args.config);
    }
    end_with_any_panic(args.data_dir());
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The error is one line for the operator.
fn serve(args: &Args) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| format!("--log {}: {error}", args.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let message = bootstrap::parse_in_child(&args.config).map_err(|error| error.to_string())?;
    let config_path = args.config.display().to_string();
    let bootstrap = Bootstrap::from_message(&config_path, &message).map_err(|error| error.to_string())?;
    drop(message);
    if args.validate {
        println!("configuration '{config_path}' OK");
        return Ok(());
    }
    let options = Options {
        config_path,
        workers: args.workers.map(usize::from),
        pin: if args.pin { Some(true) } else { args.no_pin.then_some(false) },
        io: args.io.into(),
        data_dir: args.data_dir(),
        access_log: args.access_log.clone(),
        drain_timeout: args.drain_timeout,
        exit_on_stdin_eof: args.exit_on_stdin_eof,
    };
    control_thread::run(bootstrap, &options).map_err(|error| chain(&error))
}

/// A panic anywhere is a bug of ours after which no state can be trusted: it is reported, and the process ends for its
/// supervisor to start it again. A worker must not die alone while the others go on.
fn end_with_any_panic(data_dir: Option<PathBuf>) {
    panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let report = format!(
            "ringway-proxy {} ended by a bug: thread {} {panic}\n{}",
            env!("CARGO_PKG_VERSION"),
            thread.name().unwrap_or("without a name"),
            Backtrace::force_capture(),
        );
        eprintln!("{report}");
        // The last one is kept: standard error may go nowhere.
        if let Some(data_dir) = &data_dir {
            let _ = std::fs::write(data_dir.join("crash.txt"), &report);
        }
        std::process::abort();
    }));
}
