//! `ringway token`: a secret with which one host joins the mesh, once.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use policy::peer::SpiffeId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use super::data_dir::{DataDir, NoDataDir};
use super::output::{self, Format};
use crate::ca::TRUST_DOMAIN_DEFAULT;
use crate::host::{JoinToken, RootHash};
use crate::server::BUNDLE;
use crate::sidecar::environment::is_dns_label;
use crate::store::{Grant, NoRandom, Store, StoreError, Token};

/// Longest name of a host, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// For whom, and what it may do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It is run where the control plane runs, by the user who runs it. The token is printed alone on standard output and kept \
nowhere: who has lost it makes another. It buys the host's own identity, once (`ringway join`). What --allow names may run \
there from then on, and nothing that an earlier token of the host allowed.

Exit codes: 0, or 1 if there is no token.

Examples:
  ringway token --host vm1 --allow shop/web,shop/pay
  ringway token --host vm1 --allow shop/web --ttl 10m > vm1.token   # there: ringway join CONTROL:15010 --token-file vm1.token
  ringway token --host vm1 --allow shop/web -o json | jq -r .token")]
pub(super) struct Args {
    /// Name of the host
    #[arg(long, value_name = "NAME")]
    host: Host,
    /// Workloads that may run there: NAMESPACE/SERVICE, several with commas
    #[arg(long, value_name = "NS/SA", value_delimiter = ',', required = true)]
    allow: Vec<Workload>,
    /// How long it may be spent
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// What the identities of the mesh begin with
    #[arg(long, value_name = "DOMAIN", default_value = TRUST_DOMAIN_DEFAULT, env = "RINGWAY_TRUST_DOMAIN")]
    trust_domain: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Name of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host(String);

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() <= HOST_BYTES_MAX && text.split('.').all(is_dns_label) {
            true => Ok(Host(text.to_owned())),
            false => Err("expected a host name in lower case"),
        }
    }
}

/// `NAMESPACE/SERVICE`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Workload {
    namespace: String,
    service: String,
}

impl FromStr for Workload {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, service)) if is_dns_label(namespace) && is_dns_label(service) => {
                Ok(Workload { namespace: namespace.to_owned(), service: service.to_owned() })
            }
            _ => Err("expected NAMESPACE/SERVICE, both DNS labels"),
        }
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) { Err("at least 1s".to_owned()) } else { Ok(ttl) }
}

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error(transparent)]
    NoDataDir(#[from] NoDataDir),
    #[error("the trust domain {0:?} is none")]
    TrustDomain(String),
    #[error("{0:?} is too far away")]
    Ttl(Duration),
    #[error("no root of a mesh is in {path}; `ringway serve` writes it there when it starts")]
    NoRoot { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Random(#[from] NoRandom),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Made<'a> {
    token: &'a str,
    host: String,
    allow: Vec<&'a str>,
    ttl_seconds: u64,
}

/// Makes and prints one.
pub(super) fn run(args: &Args) -> ExitCode {
    match make(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<(), TokenError> {
    let domain = || TokenError::TrustDomain(args.trust_domain.clone());
    let identity = |path: String| {
        let id = SpiffeId::parse(&format!("spiffe://{}{path}", args.trust_domain)).map_err(|_| domain())?;
        if id.path() == path { Ok(id) } else { Err(domain()) }
    };
    let workloads = args.allow.iter().map(|of| format!("/ns/{}/sa/{}", of.namespace, of.service));
    let allowed: Vec<SpiffeId> = workloads.map(identity).collect::<Result<_, _>>()?;
    let host = identity(format!("/host/{}", args.host.0))?;
    let now = SystemTime::now();
    let expires_at = now.checked_add(args.ttl).ok_or(TokenError::Ttl(args.ttl))?;
    let data_dir = args.data_dir.path()?;
    let token = JoinToken { token: Token::new()?, root: root(&data_dir.join(BUNDLE))? };
    let grant = Grant { host: args.host.0.clone(), allowed };
    Store::open(&data_dir)?.add_token(&token.token, &grant, now, expires_at)?;
    let mut out = io::stdout().lock();
    match args.output {
        // Alone, so that it goes into a file or a variable as it is.
        Format::Table => writeln!(out, "{}", token.reveal())?,
        Format::Json => {
            let allow = grant.allowed.iter().map(SpiffeId::as_str).collect();
            let ttl_seconds = args.ttl.as_secs();
            let made = Made { token: &token.reveal(), host: host.to_string(), allow, ttl_seconds };
            writeln!(out, "{}", output::pretty(&made))?;
        }
    }
    Ok(())
}

/// The root by which a host knows the control plane.
fn root(path: &Path) -> Result<RootHash, TokenError> {
    let no_root = |source| TokenError::NoRoot { path: path.to_owned(), source };
    let content = std::fs::read(path).map_err(no_root)?;
    let root = CertificateDer::from_pem_slice(&content).map_err(|error| no_root(io::Error::other(error)))?;
    Ok(RootHash::of(&root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_an_identity_can_have() {
        for (host, fine) in [
            ("vm1", true),
            ("vm1.example.com", true),
            ("", false),
            ("vm/1", false),
            ("vm1.", false),
            ("VM1", false),
        ] {
            assert_eq!(host.parse::<Host>().is_ok(), fine, "{host}");
        }
        assert!("a.".repeat(127).parse::<Host>().is_err());
        for (workload, fine) in
            [("shop/web", true), ("web", false), ("a/b/c", false), ("shop/", false), ("../x", false)]
        {
            assert_eq!(workload.parse::<Workload>().is_ok(), fine, "{workload}");
        }
        assert!(ttl("0s").is_err() && ttl("1s").is_ok() && ttl("x").is_err());
    }
}
