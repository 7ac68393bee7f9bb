//! `ringway status`: is the newest revision active everywhere?

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::output::{self, Cell, Format, Tone, age, painted, pretty};
use crate::api::client::{Api, ApiError};
use crate::api::{DocumentList, DocumentRow, ObjectName};
use crate::report::{ProxyRow, Status, SyncState};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
STATE is synced (the newest revision is active), pending, nack (the proxy refused some of it, its last good version \
serves) or offline (it goes on with what it has). REVISION is wanted/active, AGE since when it is active. What is in \
the directory when the command is started counts, read by the control plane or not.

Exit codes: 0 everything is active everywhere, 1 not everything (with --wait: not within the timeout) or some \
document cannot be used, 2 no control plane answers.

Examples:
  ringway status
  ringway status --wait --timeout 10s && echo 'rolled out'
  ringway status --documents
  ringway status --documents -o json | jq '.documents[].status'")]
pub(super) struct Args {
    /// The control plane's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15080", env = "RINGWAY_API")]
    api: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Wait until the newest revision is active in every proxy
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Show every document and what became of it, instead of the proxies
    #[arg(long)]
    documents: bool,
}

/// Asks, prints, and answers by the exit code.
pub(super) fn run(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(show(args)),
        Err(error) => Err(StatusError::Print(error)),
    };
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(StatusError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(1),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Whether everything is active everywhere.
async fn show(args: &Args) -> Result<bool, StatusError> {
    let api = Api::new(&args.api)?;
    let status = if args.wait { wait(&api, args.timeout).await? } else { api.status_now().await? };
    let fine = status.synced && status.document_errors == 0;
    let (mut out, colour) = (io::stdout().lock(), output::stdout_has_colour());
    match (args.documents, args.output) {
        (false, Format::Json) => writeln!(out, "{}", pretty(&status))?,
        (false, Format::Table) => print_status(&mut out, colour, &status)?,
        (true, format) => {
            let documents = api.documents().await?;
            match format {
                Format::Json => writeln!(out, "{}", pretty(&documents))?,
                Format::Table => print_documents(&mut out, colour, &documents)?,
            }
        }
    }
    Ok(fine)
}

/// Looks until everything is synced or the time is over; the last look is returned. A control plane that cannot be
/// reached at first may be about to start.
async fn wait(api: &Api, timeout: Duration) -> Result<Status, ApiError> {
    let (start, progress) = (Instant::now(), io::stderr().is_terminal());
    let (mut said, mut asked) = (false, false);
    let last = loop {
        // The first answer says which revision is meant: what the directory holds at the time of the question.
        let status = if asked { api.status().await } else { api.status_now().await };
        asked |= status.is_ok();
        let synced = status.as_ref().is_ok_and(|status| status.synced);
        let waited = start.elapsed();
        if synced || waited >= timeout {
            break status;
        }
        if progress && waited > Duration::from_secs(1) {
            said = true;
            eprint!("\r\x1b[K{}", waiting_for(&status));
        }
        tokio::time::sleep(LOOK_EVERY.min(timeout - waited)).await;
    };
    if said {
        eprint!("\r\x1b[K");
    }
    last
}

fn waiting_for(status: &Result<Status, ApiError>) -> String {
    match status {
        Ok(status) => {
            let synced = status.proxies.iter().filter(|proxy| proxy.state == SyncState::Synced).count();
            format!("waiting: {} is active in {synced} of {} proxies", status.revision, status.proxies.len())
        }
        Err(_) => "waiting for the control plane".to_owned(),
    }
}

fn print_status(out: &mut impl Write, colour: bool, status: &Status) -> io::Result<()> {
    let head = ["APP", "ROLE", "HOST", "VERSION", "REVISION", "AGE", "STATE", "IO", "WORKERS", "NODE"];
    let rows: Vec<_> = status.proxies.iter().map(proxy_row).collect();
    if rows.is_empty() {
        writeln!(out, "no proxy is connected")?;
    } else {
        output::table(out, colour, head, &rows)?;
    }
    for proxy in &status.proxies {
        for refused in &proxy.refused {
            let what = painted("refused", Tone::Bad, colour);
            writeln!(out, "{what} by {}: {} {}: {}", proxy.node, refused.kind, refused.name, refused.reason)?;
        }
    }
    for (reason, nodes) in without_io_uring(&status.proxies) {
        let what = painted("epoll", Tone::Wait, colour);
        writeln!(out, "{what} in {}: {reason}", nodes.join(", "))?;
    }
    let synced = status.proxies.iter().filter(|proxy| proxy.state == SyncState::Synced).count();
    let (count, revision) = (status.proxies.len(), &status.revision);
    writeln!(
        out,
        "\nrevision {revision}, {} old: active in {synced} of {count} proxies",
        age(status.revision_age_ms)
    )?;
    if status.document_errors > 0 {
        let what =
            painted(&format!("{} documents cannot be used", status.document_errors), Tone::Bad, colour);
        writeln!(out, "{what}: ringway status --documents")?;
    }
    Ok(())
}

/// Why proxies do without io_uring, each reason once with the nodes it holds for.
fn without_io_uring(proxies: &[ProxyRow]) -> BTreeMap<&str, Vec<&str>> {
    let mut reasons = BTreeMap::<_, Vec<_>>::new();
    for proxy in proxies.iter().filter(|proxy| !proxy.io_driver_reason.is_empty()) {
        reasons.entry(proxy.io_driver_reason.as_str()).or_default().push(proxy.node.as_str());
    }
    reasons
}

fn proxy_row(proxy: &ProxyRow) -> [Cell; 10] {
    let (state, tone) = match proxy.state {
        SyncState::Synced => ("synced", Tone::Good),
        SyncState::Pending => ("pending", Tone::Wait),
        SyncState::Nack => ("nack", Tone::Bad),
        SyncState::Offline => ("offline", Tone::Bad),
    };
    let active = if proxy.revision_active.is_empty() { "-" } else { &proxy.revision_active };
    let revision = if proxy.revision_wanted == active {
        active.to_owned()
    } else {
        format!("{}/{active}", proxy.revision_wanted)
    };
    let workers = if proxy.workers == 0 { String::new() } else { proxy.workers.to_string() };
    let age = if proxy.revision_active.is_empty() { String::new() } else { age(proxy.active_age_ms) };
    [
        proxy.app.as_str().into(),
        proxy.role.as_str().into(),
        proxy.host.as_str().into(),
        proxy.version.as_str().into(),
        revision.into(),
        age.into(),
        Cell::toned(state, tone),
        proxy.io_driver.as_str().into(),
        workers.into(),
        proxy.node.as_str().into(),
    ]
}

fn print_documents(out: &mut impl Write, colour: bool, list: &DocumentList) -> io::Result<()> {
    let rows: Vec<_> = list.documents.iter().flat_map(document_rows).collect();
    output::table(
        out,
        colour,
        ["KIND", "NAME", "PARENT", "CONDITION", "STATUS", "REASON", "WHERE", "MESSAGE"],
        &rows,
    )?;
    for document in list.documents.iter().filter(|document| !document.unused.is_empty()) {
        let what = painted("not used", Tone::Wait, colour);
        let (kind, name, fields) = (&document.kind, full_name(document), document.unused.join(", "));
        writeln!(out, "{what} {}: {kind} {name}: {fields}", document.origin)?;
    }
    for error in &list.errors {
        let what = painted("error", Tone::Bad, colour);
        let after = if error.last_good_serves { " (its last good version serves)" } else { "" };
        writeln!(out, "{what} {}:{}:{}: {}{after}", error.file, error.line, error.column, error.reason)?;
    }
    writeln!(
        out,
        "\nrevision {}: {} documents, {} errors",
        list.revision,
        list.documents.len(),
        list.errors.len()
    )
}

fn full_name(document: &DocumentRow) -> String {
    let ObjectName { name, namespace } = &document.metadata;
    if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
}

/// One row per condition, wherever Gateway API puts them: on the object, per parent, per listener, per who is concerned.
fn document_rows(document: &DocumentRow) -> Vec<[Cell; 8]> {
    let name = full_name(document);
    let text = |value: &serde_json::Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut conditions: Vec<(String, serde_json::Value)> = Vec::new();
    let mut add = |parent: String, holder: &serde_json::Value| {
        conditions
            .extend(list(&holder["conditions"]).into_iter().map(|condition| (parent.clone(), condition)));
    };
    add(String::new(), &document.status);
    for parent in list(&document.status["parents"]) {
        let parent_ref = &parent["parentRef"];
        let section = parent_ref["sectionName"].as_str().map(|name| format!("#{name}")).unwrap_or_default();
        add(format!("{}{section}", text(parent_ref, "name")), &parent);
    }
    for ancestor in list(&document.status["ancestors"]) {
        add(text(&ancestor["ancestorRef"], "name"), &ancestor);
    }
    for listener in list(&document.status["listeners"]) {
        add(format!("#{}", text(&listener, "name")), &listener);
    }
    let row = |parent: &str, condition: &serde_json::Value| -> [Cell; 8] {
        let status = text(condition, "status");
        let tone = match (status.as_str(), text(condition, "type").as_str()) {
            // The one condition that is good when it does not hold.
            ("False", "Conflicted") => Tone::Good,
            ("True", "Conflicted" | "InsecureFrontendValidationMode") | ("False", _) => Tone::Bad,
            ("True", _) => Tone::Good,
            _ => Tone::Wait,
        };
        [
            document.kind.as_str().into(),
            name.clone().into(),
            parent.into(),
            text(condition, "type").into(),
            Cell::toned(status, tone),
            text(condition, "reason").into(),
            document.origin.as_str().into(),
            text(condition, "message").into(),
        ]
    };
    if conditions.is_empty() {
        return vec![row("", &serde_json::Value::Null)];
    }
    conditions.iter().map(|(parent, condition)| row(parent, condition)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_found_wherever_gateway_api_puts_them() {
        let document = |status| DocumentRow {
            api_version: "gateway.networking.k8s.io/v1".into(),
            kind: "HTTPRoute".into(),
            metadata: ObjectName { name: "pay".into(), namespace: "shop".into() },
            status,
            origin: "mesh.yaml:3:1".into(),
            unused: Vec::new(),
        };
        let condition =
            json!([{"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no"}]);
        let table = [
            (
                json!({"conditions": condition}),
                "HTTPRoute shop/pay  Accepted False NoMatchingParent mesh.yaml:3:1 no",
            ),
            (
                json!({"parents": [{"parentRef": {"name": "edge", "sectionName": "web"}, "conditions": condition}]}),
                "HTTPRoute shop/pay edge#web Accepted False NoMatchingParent mesh.yaml:3:1 no",
            ),
            (
                json!({"listeners": [{"name": "web", "conditions": condition}]}),
                "HTTPRoute shop/pay #web Accepted False NoMatchingParent mesh.yaml:3:1 no",
            ),
            (json!(null), "HTTPRoute shop/pay     mesh.yaml:3:1 "),
        ];
        for (status, line) in table {
            let rows = document_rows(&document(status));
            let lines: Vec<_> =
                rows.iter().map(|row| row.clone().map(|cell| cell.text().to_owned()).join(" ")).collect();
            assert_eq!(lines, [line]);
        }
    }
}
