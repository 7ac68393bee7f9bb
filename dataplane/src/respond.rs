//! The one table: what went wrong in an exchange → status, Envoy's response flag, and a reason that users can read.
//!
//! Every answer of our own comes from here, whatever hop found the trouble. The reason is a stable word; it goes to the
//! access log and, unless switched off, into `x-ringway-reason`.

mod answer;

use wire::{
    http1::{body::BodyError, encode::EncodeError, parse::ParseError},
    path::PathError,
};

pub use self::answer::{RouteAnswer, answer_failed, answer_route};
use crate::upstream::CheckoutError;

/// Whose fault a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The downstream sent something wrong, or went away.
    Downstream,
    /// The upstream did, or cannot be reached.
    Upstream,
    /// The configuration does not allow or know it.
    Policy,
}

/// How far an exchange had come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Nothing was sent upstream: any answer can be given, and any endpoint be tried.
    NothingSent,
    /// Bytes of the request may have reached an upstream.
    RequestSent,
    /// The head of the final response went downstream: only closing is left.
    ResponseStarted,
}

/// What ended an exchange early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The request head was refused.
    #[error("malformed request head: {0}")]
    RequestHead(ParseError),
    /// A header name has an underscore, and the configuration wants none.
    #[error("underscore in a header name")]
    HeaderUnderscore,
    /// The head did not arrive within the headers timeout.
    #[error("request head not received in time")]
    RequestHeadTimeout,
    /// The request body was refused.
    #[error("malformed request body: {0}")]
    RequestBody(BodyError),
    /// The request body did not arrive in time.
    #[error("request body not received in time")]
    RequestBodyTimeout,
    /// The process holds as much memory as it may.
    #[error("overloaded")]
    Overloaded,
    /// A rule does not allow it. Who asked is not told which.
    #[error("RBAC: access denied")]
    AccessDenied,
    /// CONNECT that no route takes.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// An upgrade that cannot be passed over, and that the configuration does not allow or upstream does not know.
    #[error("upgrade not allowed")]
    UpgradeNotAllowed,
    /// The path has two meanings, and the configuration wants none of them.
    #[error("refused: {0}")]
    Path(PathError),
    /// No route takes the request.
    #[error("no route")]
    NoRoute,
    /// The route names a cluster that is not known.
    #[error("unknown cluster")]
    NoCluster,
    /// The cluster has no endpoint to pick.
    #[error("no healthy endpoint")]
    NoHealthyEndpoint,
    /// A dynamic forward cluster, and the authority of the request is not a host.
    #[error("the authority is not a host with an optional port")]
    AuthorityNoHost,
    /// The name of the host has no address.
    #[error("no address found for the host of the request")]
    HostNotFound,
    /// The host was not looked up in time.
    #[error("the host of the request was not looked up in time")]
    LookUpTimeout,
    /// As many hosts are known as may be.
    #[error("too many different hosts")]
    HostsOverflow,
    /// The host of the request is where this proxy listens for such requests.
    #[error("the request leads back to this proxy")]
    ForwardingLoop,
    /// A rewrite gave a path or host that cannot be sent.
    #[error("rewritten request cannot be sent: {0}")]
    Rewrite(EncodeError),
    /// No connection could be made.
    #[error("connection refused or unreachable")]
    ConnectFailed,
    /// No connection could be tried: this machine has no descriptor, port or memory for it.
    #[error("no descriptor, port or memory for a connection")]
    LocalShortage,
    /// No connection could be made that is as secure as it must be.
    #[error("no TLS with upstream")]
    UpstreamInsecure,
    /// No connection could be made in time.
    #[error("connection timed out")]
    ConnectTimeout,
    /// The connection ended before any byte of a response.
    #[error("upstream closed the connection without an answer")]
    UpstreamClosed,
    /// The connection broke before any byte of a response.
    #[error("upstream reset the connection without an answer")]
    UpstreamReset,
    /// Upstream has not looked at the request, since it takes no more streams for now.
    #[error("upstream refused the stream")]
    UpstreamRefused,
    /// Upstream has reset the stream before any byte of a response.
    #[error("upstream reset the stream without an answer")]
    UpstreamStreamReset,
    /// The response head was refused, or the connection ended inside it.
    #[error("malformed response")]
    ResponseMalformed,
    /// The route timeout passed.
    #[error("upstream did not answer in time")]
    UpstreamTimeout,
    /// No byte in either direction for the idle timeout.
    #[error("nothing moved for the idle timeout")]
    StreamIdle,
    /// The response ended early or broke after it had begun.
    #[error("response cut short by upstream")]
    ResponseTruncated,
    /// The downstream went away.
    #[error("downstream closed the connection")]
    DownstreamGone,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The status of our answer; of the log line only when an answer is not possible any more.
    pub status: u16,
    /// Envoy's response flag.
    pub flag: &'static str,
    /// A word for `x-ringway-reason` and the access log, stable between versions.
    pub reason: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
}

/// The row of an error.
pub fn row(error: ExchangeError) -> Row {
    use ExchangeError as E;
    use Fault::{Downstream, Policy, Upstream};
    let row = |status, flag, reason, fault| Row { status, flag, reason, fault };
    match error {
        E::RequestHead(why) => row(why.status(), "DPE", why.reason(), Downstream),
        E::HeaderUnderscore => row(400, "DPE", "header-underscore", Downstream),
        E::RequestHeadTimeout => row(408, "DT", "head-timeout", Downstream),
        E::RequestBody(why) => row(why.status(), "DPE", why.reason(), Downstream),
        E::RequestBodyTimeout => row(408, "DT", "body-timeout", Downstream),
        E::Overloaded => row(503, "OM", "overloaded", Policy),
        E::AccessDenied => row(403, "-", "rbac-access-denied", Policy),
        E::MethodNotAllowed => row(405, "DPE", "method-not-allowed", Downstream),
        E::UpgradeNotAllowed => row(403, "-", "upgrade-not-allowed", Policy),
        E::Path(PathError::EscapedSlash) => row(400, "DPE", "escaped-slash", Downstream),
        E::Path(PathError::EscapedNul) => row(400, "DPE", "escaped-nul", Downstream),
        E::NoRoute => row(404, "NR", "no-route", Policy),
        E::NoCluster => row(503, "NC", "unknown-cluster", Policy),
        E::NoHealthyEndpoint => row(503, "UH", "no-healthy-endpoint", Upstream),
        E::AuthorityNoHost => row(400, "DPE", "authority-no-host", Downstream),
        E::HostNotFound => row(503, "DF", "host-not-found", Upstream),
        E::LookUpTimeout => row(503, "DF", "look-up-timeout", Upstream),
        E::HostsOverflow => row(503, "UO", "too-many-hosts", Policy),
        E::ForwardingLoop => row(508, "-", "forwarding-loop", Policy),
        E::Rewrite(_) => row(500, "-", "rewrite-unsendable", Policy),
        E::ConnectFailed => row(503, "UF", "connect-failed", Upstream),
        E::LocalShortage => row(503, "UF", "local-shortage", Policy),
        E::UpstreamInsecure => row(503, "UF", "upstream-tls-failed", Upstream),
        E::ConnectTimeout => row(503, "UF", "connect-timeout", Upstream),
        E::UpstreamClosed => row(503, "UC", "upstream-closed", Upstream),
        E::UpstreamReset => row(503, "UC", "upstream-reset", Upstream),
        E::UpstreamRefused => row(503, "UR", "upstream-refused", Upstream),
        E::UpstreamStreamReset => row(503, "UR", "upstream-stream-reset", Upstream),
        E::ResponseMalformed => row(502, "UPE", "response-malformed", Upstream),
        E::UpstreamTimeout => row(504, "UT", "upstream-timeout", Upstream),
        E::StreamIdle => row(504, "SI", "stream-idle", Upstream),
        E::ResponseTruncated => row(502, "UC", "response-truncated", Upstream),
        E::DownstreamGone => row(0, "DC", "downstream-closed", Downstream),
    }
}

impl From<CheckoutError> for ExchangeError {
    fn from(error: CheckoutError) -> ExchangeError {
        match error {
            CheckoutError::Failed { .. } => ExchangeError::ConnectFailed,
            CheckoutError::Shortage { .. } => ExchangeError::LocalShortage,
            CheckoutError::Insecure { .. } => ExchangeError::UpstreamInsecure,
            CheckoutError::TimedOut { .. } => ExchangeError::ConnectTimeout,
        }
    }
}

impl From<EncodeError> for ExchangeError {
    fn from(error: EncodeError) -> ExchangeError {
        ExchangeError::Rewrite(error)
    }
}

impl From<PathError> for ExchangeError {
    fn from(error: PathError) -> ExchangeError {
        ExchangeError::Path(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the README shows it; a new error must be given a row and a line here.
    #[test]
    fn every_failure_has_a_status_a_flag_and_a_reason_of_its_own() {
        use ExchangeError as E;
        let all = [
            E::RequestHead(ParseError::HeadTooLarge),
            E::HeaderUnderscore,
            E::RequestHeadTimeout,
            E::RequestBody(BodyError::ChunkSize),
            E::RequestBodyTimeout,
            E::Overloaded,
            E::AccessDenied,
            E::MethodNotAllowed,
            E::UpgradeNotAllowed,
            E::Path(PathError::EscapedSlash),
            E::Path(PathError::EscapedNul),
            E::NoRoute,
            E::NoCluster,
            E::NoHealthyEndpoint,
            E::AuthorityNoHost,
            E::HostNotFound,
            E::LookUpTimeout,
            E::HostsOverflow,
            E::ForwardingLoop,
            E::Rewrite(EncodeError::Path),
            E::ConnectFailed,
            E::LocalShortage,
            E::UpstreamInsecure,
            E::ConnectTimeout,
            E::UpstreamClosed,
            E::UpstreamReset,
            E::UpstreamRefused,
            E::UpstreamStreamReset,
            E::ResponseMalformed,
            E::UpstreamTimeout,
            E::StreamIdle,
            E::ResponseTruncated,
            E::DownstreamGone,
        ];
        let table: Vec<String> = all
            .iter()
            .map(|error| {
                let row = row(*error);
                format!("{} {} {}", row.status, row.flag, row.reason)
            })
            .collect();
        assert_eq!(
            table,
            [
                "431 DPE head-too-large",
                "400 DPE header-underscore",
                "408 DT head-timeout",
                "400 DPE chunk-size",
                "408 DT body-timeout",
                "503 OM overloaded",
                "403 - rbac-access-denied",
                "405 DPE method-not-allowed",
                "403 - upgrade-not-allowed",
                "400 DPE escaped-slash",
                "400 DPE escaped-nul",
                "404 NR no-route",
                "503 NC unknown-cluster",
                "503 UH no-healthy-endpoint",
                "400 DPE authority-no-host",
                "503 DF host-not-found",
                "503 DF look-up-timeout",
                "503 UO too-many-hosts",
                "508 - forwarding-loop",
                "500 - rewrite-unsendable",
                "503 UF connect-failed",
                "503 UF local-shortage",
                "503 UF upstream-tls-failed",
                "503 UF connect-timeout",
                "503 UC upstream-closed",
                "503 UC upstream-reset",
                "503 UR upstream-refused",
                "503 UR upstream-stream-reset",
                "502 UPE response-malformed",
                "504 UT upstream-timeout",
                "504 SI stream-idle",
                "502 UC response-truncated",
                "0 DC downstream-closed",
            ]
        );
        let reasons: std::collections::BTreeSet<_> = all.iter().map(|error| row(*error).reason).collect();
        assert_eq!(reasons.len(), all.len());
    }
}
