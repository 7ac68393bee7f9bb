//! `ringway id`: who is who in the mesh.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::output::{self, Cell, Format, Tone, age};
use crate::api::CertificateRow;
use crate::api::client::{Api, ApiError};

mod can;

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringway id certs
  ringway id can web orders GET /v1/orders")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every certificate that was issued and is still good
    Certs(CertsArgs),
    /// Say whether one workload may call another, and by which rule
    Can(can::Args),
}

/// How to show certificates.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One row per certificate, so a workload that renewed its own has several: the newest comes first. LEFT is how long it is good \
for, ISSUED how long ago that was done, TO who asked and how that was proved.

Exit codes: 0, or 2 if no control plane answers.

Examples:
  ringway id certs
  ringway id certs --identity spiffe://mesh.local/ns/shop/sa/web
  ringway id certs -o json | jq 'min_by(.left_seconds)'")]
struct CertsArgs {
    /// Only those of this identity
    #[arg(long, value_name = "SPIFFE_ID")]
    identity: Option<String>,
    /// The control plane's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15080", env = "RINGWAY_API")]
    api: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, thiserror::Error)]
enum IdError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Asks and prints.
pub(super) fn run(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(show(&args.command)),
        Err(error) => Err(IdError::Print(error)),
    };
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(IdError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(1),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(2)
        }
    }
}

async fn show(command: &Command) -> Result<bool, IdError> {
    match command {
        Command::Certs(args) => certs(args).await.map(|()| true),
        Command::Can(args) => can::run(args).await,
    }
}

async fn certs(args: &CertsArgs) -> Result<(), IdError> {
    let mut rows: Vec<CertificateRow> = Api::new(&args.api)?.json("/api/v1/certificates").await?;
    rows.retain(|row| args.identity.as_ref().is_none_or(|wanted| row.identity == *wanted));
    let (mut out, colour) = (io::stdout().lock(), output::stdout_has_colour());
    match args.output {
        Format::Json => writeln!(out, "{}", output::pretty(&rows))?,
        Format::Table if rows.is_empty() => writeln!(out, "no certificate is good now")?,
        Format::Table => {
            let rows: Vec<_> = rows.iter().map(row).collect();
            output::table(&mut out, colour, ["IDENTITY", "LEFT", "ISSUED", "TO", "SERIAL"], &rows)?;
        }
    }
    Ok(())
}

fn row(of: &CertificateRow) -> [Cell; 5] {
    // A proxy renews at half of a life, so what has a tenth left was renewed, or is in trouble.
    let is_late = of.left_seconds * 10 < of.not_after.saturating_sub(of.issued_at);
    let left = Cell::toned(age(of.left_seconds * 1000), if is_late { Tone::Wait } else { Tone::Plain });
    let issued = format!("{} ago", age(of.age_seconds * 1000));
    [
        of.identity.as_str().into(),
        left,
        issued.into(),
        of.issued_to.as_str().into(),
        of.serial.as_str().into(),
    ]
}
