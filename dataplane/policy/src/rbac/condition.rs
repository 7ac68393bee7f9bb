//! One condition of a policy (Envoy: `Permission`, `Principal`): a tree of tests.

use alloc::{boxed::Box, vec::Vec};
use core::ops::Range;

use super::{Facts, Lean, header};
use crate::{
    cidr::Cidr,
    route::{HeaderMatch, RouteScratch, path_of},
    string_match::StringMatch,
};

/// A test of what is known of a request or a connection. Envoy has two messages, for what is done and for who does it, in
/// which the same things mean the same; here they are one.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Always holds (`any`).
    Always,
    /// All hold (`and_rules`, `and_ids`).
    All(Conditions),
    /// One holds (`or_rules`, `or_ids`).
    Any(Conditions),
    /// It does not hold (`not_rule`, `not_id`).
    Not(Box<Condition>),
    /// A header of the request passes.
    Header(HeaderMatch),
    /// The path of the request, without query, passes (`url_path`).
    Path(StringMatch),
    /// The connection was made to such an address (`destination_ip`).
    DestinationIp(Cidr),
    /// It was made to such a port (`destination_port`, `destination_port_range`).
    DestinationPort(Ports),
    /// The server name of the ClientHello passes; it is empty where there is none (`requested_server_name`).
    RequestedServerName(StringMatch),
    /// The other end has shown a certificate that was verified, with a name that passes if there is a test (`authenticated`).
    /// Envoy without a test takes every connection with TLS; here that needs a certificate, too.
    Authenticated(Option<StringMatch>),
    /// The connection was made from such an address, as a PROXY protocol header tells (`source_ip`).
    SourceIp(Cidr),
    /// Its other end has such an address (`direct_remote_ip`).
    DirectRemoteIp(Cidr),
    /// The client has such an address, as `x-forwarded-for` tells where it is believed (`remote_ip`).
    RemoteIp(Cidr),
}

/// One condition or more. None at all could only mean something else than whoever wrote it thought.
#[derive(Clone, Debug)]
pub struct Conditions(Box<[Condition]>);

/// Ports that follow each other; at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port.
    pub fn one(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    /// From the first to before the last, as Envoy's ranges are; `None` where that is none, or there is no such port.
    pub fn range(ports: Range<u32>) -> Option<Ports> {
        let last = u16::try_from(ports.end.checked_sub(1)?).ok()?;
        let first = u16::try_from(ports.start).ok()?;
        (first <= last).then_some(Ports { first, last })
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl Conditions {
    /// `None` when there is none.
    pub fn new(conditions: Vec<Condition>) -> Option<Conditions> {
        (!conditions.is_empty()).then(|| Conditions(conditions.into()))
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Whether one holds.
    pub(super) fn any(&self, facts: &Facts<'_>, lean: Lean, scratch: &mut RouteScratch) -> bool {
        self.0.iter().any(|condition| condition.holds(facts, lean, scratch))
    }

    fn all(&self, facts: &Facts<'_>, lean: Lean, scratch: &mut RouteScratch) -> bool {
        self.0.iter().all(|condition| condition.holds(facts, lean, scratch))
    }

    /// Levels, itself included.
    pub(super) fn depth(&self) -> usize {
        1 + self.0.iter().map(Condition::depth).max().unwrap_or_default()
    }

    /// Conditions at all levels.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(Condition::count).sum()
    }

    /// Whether one can only be answered of a request.
    pub(super) fn asks_for_request(&self) -> bool {
        self.0.iter().any(Condition::asks_for_request)
    }
}

impl Condition {
    /// Whether it holds.
    pub(super) fn holds(&self, facts: &Facts<'_>, lean: Lean, scratch: &mut RouteScratch) -> bool {
        match self {
            Condition::Always => true,
            Condition::All(conditions) => conditions.all(facts, lean, scratch),
            Condition::Any(conditions) => conditions.any(facts, lean, scratch),
            Condition::Not(condition) => !condition.holds(facts, lean.turned(), scratch),
            Condition::Header(header) => match &facts.request {
                Some((request, _)) => header::holds(header, request, lean, scratch),
                None => lean.in_doubt(),
            },
            Condition::Path(test) => match &facts.request {
                // Plain CONNECT has no path, and no test of one holds.
                Some((request, _)) => {
                    path_of(request).is_some_and(|path| test.matches(path, &mut scratch.regexes))
                }
                None => lean.in_doubt(),
            },
            Condition::DestinationIp(block) => block.contains(facts.local.ip()),
            Condition::DestinationPort(ports) => ports.contains(facts.local.port()),
            Condition::RequestedServerName(test) => {
                header::name_passes(test, facts.server_name.as_bytes(), scratch)
            }
            Condition::Authenticated(None) => facts.peer.is_some(),
            Condition::Authenticated(Some(test)) => facts.peer.is_some_and(|peer| {
                let mut names = peer.principals();
                names.any(|name| test.matches(name.as_bytes(), &mut scratch.regexes))
            }),
            Condition::SourceIp(block) => block.contains(facts.remote.ip()),
            Condition::DirectRemoteIp(block) => block.contains(facts.direct_remote),
            Condition::RemoteIp(block) => block.contains(match &facts.request {
                Some((request, trust)) => trust.client(request, facts.remote).ip(),
                None => facts.remote.ip(),
            }),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Condition::All(conditions) | Condition::Any(conditions) => conditions.depth(),
            Condition::Not(condition) => 1 + condition.depth(),
            _ => 0,
        }
    }

    fn count(&self) -> usize {
        match self {
            Condition::All(conditions) | Condition::Any(conditions) => 1 + conditions.count(),
            Condition::Not(condition) => 1 + condition.count(),
            _ => 1,
        }
    }

    fn asks_for_request(&self) -> bool {
        match self {
            Condition::All(conditions) | Condition::Any(conditions) => conditions.asks_for_request(),
            Condition::Not(condition) => condition.asks_for_request(),
            Condition::Header(_) | Condition::Path(_) => true,
            Condition::Always
            | Condition::DestinationIp(_)
            | Condition::DestinationPort(_)
            | Condition::RequestedServerName(_)
            | Condition::Authenticated(_)
            | Condition::SourceIp(_)
            | Condition::DirectRemoteIp(_)
            | Condition::RemoteIp(_) => false,
        }
    }
}
