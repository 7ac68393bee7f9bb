//! `ringway edges`: who calls whom. So far, who does so in plain text.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::output::{self, Cell, Format, Tone, age, painted, pretty};
use crate::api::client::{Api, ApiError};
use crate::api::{PermissiveService, PlaintextEdge, PlaintextEdges, Verdict};

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a PeerAuthentication of mode Permissive, a service takes plain text beside the mesh's TLS. This shows who still \
comes so, and which services can be strict now because nobody does. FROM is what is known at the caller's address: a \
workload, or several that share it.

Exit codes: 0 nobody came in plain text within that time, to any service, 1 somebody did, or it is not known of a service \
for as long, 2 no control plane answers.

Examples:
  ringway edges --plaintext
  ringway edges --plaintext --since 24h && echo 'everything can be strict'
  ringway edges --plaintext -o json | jq '.permissive[] | select(.verdict == \"can-be-strict\")'")]
pub(super) struct Args {
    /// Show who calls in plain text; it is all that is shown yet, so it has to be given
    #[arg(long)]
    plaintext: bool,
    /// How far to look back, at most 7 days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    since: Duration,
    /// The control plane's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15080", env = "RINGWAY_API")]
    api: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, thiserror::Error)]
enum EdgesError {
    #[error("without --plaintext there is nothing to show yet: only who calls in plain text is known")]
    NotPlaintext,
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Asks, prints, and answers by the exit code.
pub(super) fn run(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(show(args)),
        Err(error) => Err(EdgesError::Print(error)),
    };
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(EdgesError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(1),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(2)
        }
    }
}

/// Whether nobody comes in plain text.
async fn show(args: &Args) -> Result<bool, EdgesError> {
    if !args.plaintext {
        return Err(EdgesError::NotPlaintext);
    }
    let since_ms = args.since.as_millis();
    let known: PlaintextEdges =
        Api::new(&args.api)?.json(&format!("/api/v1/edges?plaintext=true&since_ms={since_ms}")).await?;
    let (mut out, colour) = (io::stdout().lock(), output::stdout_has_colour());
    match args.output {
        Format::Json => writeln!(out, "{}", pretty(&known))?,
        Format::Table => print(&mut out, colour, &known)?,
    }
    Ok(known.is_nobody())
}

fn print(out: &mut impl Write, colour: bool, known: &PlaintextEdges) -> io::Result<()> {
    let since = humantime::format_duration(Duration::from_millis(known.since_ms));
    if known.edges.is_empty() {
        writeln!(out, "nobody came in plain text in the last {since}")?;
    } else {
        let head = ["TO", "FROM", "ADDRESS", "HOST", "CONNECTIONS", "LAST SEEN"];
        let rows: Vec<_> = known.edges.iter().map(row).collect();
        output::table(out, colour, head, &rows)?;
    }
    if !known.permissive.is_empty() {
        writeln!(out)?;
    }
    for service in &known.permissive {
        writeln!(out, "{}", verdict(service, &since.to_string(), colour))?;
    }
    Ok(())
}

fn row(edge: &PlaintextEdge) -> [Cell; 6] {
    [
        edge.to.as_str().into(),
        edge.from.join(", ").into(),
        edge.address.as_str().into(),
        edge.host.as_str().into(),
        edge.connections.to_string().into(),
        format!("{} ago", age(edge.last_seen_age_ms)).into(),
    ]
}

fn verdict(of: &PermissiveService, since: &str, colour: bool) -> String {
    let PermissiveService { service, verdict, watched_ms } = of;
    let (word, tone, why) = match verdict {
        Verdict::CanBeStrict => {
            ("can be strict", Tone::Good, format!("nobody came in plain text in the last {since}"))
        }
        Verdict::Needed => {
            ("has to be permissive", Tone::Bad, "of its callers some come in plain text".to_owned())
        }
        Verdict::NotYetKnown => {
            let for_long = age(*watched_ms);
            ("is not known yet", Tone::Wait, format!("it is permissive, and watched, for only {for_long}"))
        }
        Verdict::NotAllTell => (
            "is not known",
            Tone::Wait,
            "not all of its proxies tell who comes; see ringway status".to_owned(),
        ),
    };
    format!("{service} {}: {why}", painted(word, tone, colour))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(to: &str, from: &[&str], address: &str) -> PlaintextEdge {
        PlaintextEdge {
            to: to.to_owned(),
            from: from.iter().map(|name| (*name).to_owned()).collect(),
            address: address.to_owned(),
            host: "vm1".to_owned(),
            connections: 12,
            last_seen_age_ms: 4200,
            ..PlaintextEdge::default()
        }
    }

    fn service(name: &str, verdict: Verdict) -> PermissiveService {
        PermissiveService { service: name.to_owned(), verdict, watched_ms: 300_000 }
    }

    fn text(known: &PlaintextEdges) -> String {
        let mut out = Vec::new();
        print(&mut out, false, known).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn callers_are_shown_and_who_can_be_strict() {
        let known = PlaintextEdges {
            since_ms: 3_600_000,
            edges: vec![
                edge("shop/pay", &["shop/web", "shop/batch"], "10.0.0.9"),
                edge("shop/pay", &[], "192.0.2.1"),
            ],
            permissive: vec![
                service("shop/cart", Verdict::CanBeStrict),
                service("shop/db", Verdict::NotYetKnown),
                service("shop/old", Verdict::NotAllTell),
                service("shop/pay", Verdict::Needed),
            ],
        };
        let expected = "\
TO        FROM                  ADDRESS    HOST  CONNECTIONS  LAST SEEN
shop/pay  shop/web, shop/batch  10.0.0.9   vm1   12           4.2 s ago
shop/pay  -                     192.0.2.1  vm1   12           4.2 s ago

shop/cart can be strict: nobody came in plain text in the last 1h
shop/db is not known yet: it is permissive, and watched, for only 5 min
shop/old is not known: not all of its proxies tell who comes; see ringway status
shop/pay has to be permissive: of its callers some come in plain text
";
        assert_eq!(text(&known), expected);
        assert!(!known.is_nobody());
    }

    #[test]
    fn nobody_is_only_said_where_it_is_known() {
        let mut known = PlaintextEdges { since_ms: 60_000, ..PlaintextEdges::default() };
        assert_eq!(text(&known), "nobody came in plain text in the last 1m\n");
        assert!(known.is_nobody());
        known.permissive = vec![service("shop/cart", Verdict::CanBeStrict)];
        assert!(known.is_nobody());
        for verdict in [Verdict::NotYetKnown, Verdict::NotAllTell, Verdict::Needed] {
            known.permissive = vec![service("shop/cart", verdict)];
            assert!(!known.is_nobody(), "{verdict:?}");
        }
    }
}
