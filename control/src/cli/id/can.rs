//! `ringway id can`: may one workload call another?

use std::io::{self, Write};
use std::net::IpAddr;

use super::IdError;
use crate::api::Question;
use crate::api::client::Api;
use crate::authorize::{Answer, DecidingRule};
use crate::cli::output::{self, Format, Tone, painted};

/// What to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The answer is that of the proxy before the workload, for the documents as they are in the directory now: the same \
configuration, the same code. A service without a namespace is of `default`.

Exit codes: 0 it is allowed, 1 it is denied, 2 there is no answer.

Examples:
  ringway id can web orders
  ringway id can shop/web shop/orders POST /v1/orders
  ringway id can spiffe://mesh.local/ns/shop/sa/web shop/orders GET /admin --header 'x-role: auditor'
  ringway id can web postgres --port 5432
  ringway id can web orders DELETE /v1/orders/7 -o json | jq .rule")]
pub(super) struct Args {
    /// Who calls: a service, or an identity `spiffe://…`
    #[arg(value_name = "FROM")]
    from: String,
    /// The service that is called
    #[arg(value_name = "TO")]
    to: String,
    /// The method, if it speaks HTTP
    #[arg(value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The path, with or without a query
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
    /// The host that is asked for [default: <service>.<namespace>.mesh]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A header of the request; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The application's port [default: its first one]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Where the caller is [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The control plane's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15080", env = "RINGWAY_API")]
    api: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Asks and prints; whether it is allowed.
pub(super) async fn run(args: &Args) -> Result<bool, IdError> {
    let question = Question {
        from: args.from.clone(),
        to: args.to.clone(),
        method: Some(args.method.clone()),
        path: Some(args.path.clone()),
        host: args.host.clone(),
        port: args.port,
        address: args.address,
        headers: args.headers.clone(),
    };
    let answer: Answer = Api::new(&args.api)?.json(&format!("/api/v1/can?{}", question.query())).await?;
    let (mut out, colour) = (io::stdout().lock(), output::stdout_has_colour());
    match args.output {
        Format::Json => writeln!(out, "{}", output::pretty(&answer))?,
        Format::Table => out.write_all(text(&answer, colour).as_bytes())?,
    }
    Ok(answer.allowed)
}

fn text(answer: &Answer, colour: bool) -> String {
    let mut text = verdict(answer.allowed, colour);
    text += &format!(": {}", answer.reason);
    if let Some(rule) = &answer.rule {
        text += &format!("\n  {}", place(rule));
    }
    text += &format!("\n  {} calls {}, port {}, {}\n", answer.from, answer.to, answer.port, answer.protocol);
    if let Some(path) = &answer.path {
        text += &format!("  rules and the application see the path {path}\n");
    }
    if let Some(audit) = &answer.audit {
        let rule = match &audit.rule {
            Some(rule) => format!("\n  {}", place(rule)),
            None => " (no rule allows it)".to_owned(),
        };
        let verdict = verdict(audit.allowed, colour);
        text += &format!("{verdict} if what is tried (`enforcement: Audit`) were in force{rule}\n");
    }
    text
}

fn verdict(allowed: bool, colour: bool) -> String {
    match allowed {
        true => painted("allowed", Tone::Good, colour),
        false => painted("denied", Tone::Bad, colour),
    }
}

fn place(rule: &DecidingRule) -> String {
    let DecidingRule { policy, index, origin } = rule;
    format!("{origin}: AuthorizationPolicy {policy}, spec.rules[{index}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::AuditAnswer;

    #[test]
    fn an_answer_names_the_rule_and_where_it_is() {
        let rule =
            |index| DecidingRule { policy: "shop/orders".into(), index, origin: "mesh.yaml:7:5".into() };
        let mut answer = Answer {
            allowed: true,
            from: "spiffe://mesh.local/ns/shop/sa/web".into(),
            to: "shop/orders".into(),
            port: 8080,
            protocol: "http".into(),
            reason: "a rule allows it".into(),
            rule: Some(rule(1)),
            audit: None,
            path: Some("/b".into()),
        };
        let lines = "allowed: a rule allows it
  mesh.yaml:7:5: AuthorizationPolicy shop/orders, spec.rules[1]
  spiffe://mesh.local/ns/shop/sa/web calls shop/orders, port 8080, http
  rules and the application see the path /b\n";
        assert_eq!(text(&answer, false), lines);
        answer.audit = Some(AuditAnswer { allowed: false, rule: Some(rule(0)) });
        answer.path = None;
        assert!(text(&answer, false).ends_with(
            "\ndenied if what is tried (`enforcement: Audit`) were in force
  mesh.yaml:7:5: AuthorizationPolicy shop/orders, spec.rules[0]\n"
        ));
    }
}
