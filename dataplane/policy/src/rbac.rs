//! Who may do what (Envoy: `config.rbac.v3.RBAC`): of a request, or of a connection as such.
//!
//! Everything here errs towards refusal. What cannot be evaluated is refused by `translate`, so that nothing can fail here;
//! an empty list, which would make a rule mean more or less than it says, cannot be constructed; and where a request can be
//! read in two ways, an allowing policy takes it only if it would in both, a denying one already if it would in either (see
//! [`Lean`]). The path, host and headers are those that routing sees and upstream gets: path normalization comes before.
//!
//! Faces hostile requests, and strangers' certificates that were verified. Nothing is allocated by an evaluation.

mod condition;
mod header;

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::net::{IpAddr, SocketAddr};

use wire::head::RequestView;

pub use self::condition::{Condition, Conditions, Ports};
use crate::{
    client_cert::FORWARDED_CLIENT_CERT,
    forwarded::{FORWARDED_FOR, FORWARDED_PROTO, ForwardedTrust},
    limits,
    peer::Peer,
    route::RouteScratch,
};

/// The rules of one filter (Envoy: `RBAC` of the HTTP and of the network filter). `None` decides nothing.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// What is enforced.
    pub rules: Option<Rules>,
    /// What would be: counted and logged, and without any effect (Envoy: `shadow_rules`).
    pub shadow_rules: Option<Rules>,
}

/// Policies, and what they do to those that they match.
#[derive(Clone, Debug)]
pub struct Rules {
    action: Action,
    /// By name, as Envoy evaluates them.
    policies: Box<[Policy]>,
}

/// What becomes of a request that a policy matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Action {
    /// It is allowed, and every other is not.
    #[default]
    Allow,
    /// It is denied, and no other is.
    Deny,
    /// It is noted; all are allowed.
    Log,
}

/// What may be done, and by whom. It matches where one of either does.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name: an operator finds the rule by it.
    pub name: Arc<str>,
    /// What is done (Envoy: `permissions`).
    pub permissions: Conditions,
    /// Who does it (Envoy: `principals`).
    pub principals: Conditions,
}

/// What is known of a request or a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who the other end is, by its verified certificate; `None` when it showed none.
    pub peer: Option<&'a Peer>,
    /// The other end of the connection itself.
    pub direct_remote: IpAddr,
    /// Who made the connection, as a PROXY protocol header tells.
    pub remote: SocketAddr,
    /// The address that it was made to.
    pub local: SocketAddr,
    /// Server name of the ClientHello, if one was read; empty is none.
    pub server_name: &'a str,
    /// The request, and how far its `x-forwarded-for` is believed; `None` for a connection.
    pub request: Option<(RequestView<'a>, ForwardedTrust)>,
}

/// What a filter says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decision<'a> {
    /// Of its rules.
    pub enforced: Option<Verdict<'a>>,
    /// Of its shadow rules.
    pub shadow: Option<Verdict<'a>>,
}

/// What rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict<'a> {
    /// What they do to those that they match.
    pub action: Action,
    /// The first policy that matches.
    pub policy: Option<&'a Arc<str>>,
}

/// Which way to err where what is known can be read in two ways: whether a test holds then.
///
/// `x-role: user` with `x-role: admin` is one list to some servers, and to others the first of them, or the last. A test that
/// allows must hold for each, a test that denies for one. Below a negation it is the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lean {
    /// In doubt it holds.
    Hold,
    /// In doubt it does not.
    Fail,
}

/// Why rules cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// Two policies have one name, so that a denial would not tell which it was.
    #[error("policy {name:?} is there twice")]
    Duplicate {
        /// The name.
        name: Arc<str>,
    },
    /// More than [`limits::RBAC_CONDITIONS_MAX`].
    #[error("{conditions} conditions are more than {max}")]
    TooMany {
        /// How many.
        conditions: usize,
        /// The limit.
        max: usize,
    },
    /// Deeper than [`limits::RBAC_DEPTH_MAX`].
    #[error("conditions {depth} levels deep are deeper than {max}")]
    TooDeep {
        /// How deep.
        depth: usize,
        /// The limit.
        max: usize,
    },
}

/// Headers that a proxy writes or takes off before Envoy's filter would look at them.
const WRITTEN_BY_PROXIES: &[&[u8]] = &[
    FORWARDED_CLIENT_CERT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    b"x-envoy-external-address",
    b"x-envoy-internal",
    b"x-request-id",
];

/// Whether a header is the proxy's own: of it a rule would believe what anybody says.
pub fn is_written_by_proxies(name: &[u8]) -> bool {
    WRITTEN_BY_PROXIES.iter().any(|own| name.eq_ignore_ascii_case(own))
}

impl Rbac {
    /// What it says of a request or a connection.
    pub fn decide(&self, facts: &Facts<'_>, scratch: &mut RouteScratch) -> Decision<'_> {
        Decision {
            enforced: self.rules.as_ref().map(|rules| rules.evaluate(facts, scratch)),
            shadow: self.shadow_rules.as_ref().map(|rules| rules.evaluate(facts, scratch)),
        }
    }

    /// Whether any of it can only be answered of a request.
    pub fn asks_for_request(&self) -> bool {
        let mut policies = [&self.rules, &self.shadow_rules].into_iter().flatten().flat_map(Rules::policies);
        policies.any(|of| of.permissions.asks_for_request() || of.principals.asks_for_request())
    }
}

impl Decision<'_> {
    /// Whether the request or connection goes on.
    pub fn is_allowed(&self) -> bool {
        self.enforced.is_none_or(|verdict| verdict.is_allowed())
    }
}

impl Verdict<'_> {
    /// Whether the rules allow.
    pub fn is_allowed(&self) -> bool {
        match self.action {
            Action::Allow => self.policy.is_some(),
            Action::Deny => self.policy.is_none(),
            Action::Log => true,
        }
    }
}

impl Rules {
    /// Rules of these policies; without any, `Allow` allows nothing.
    ///
    /// # Errors
    /// When two have one name, or a bound is passed.
    pub fn new(action: Action, mut policies: Vec<Policy>) -> Result<Rules, RulesError> {
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some([one, _]) = policies.array_windows().find(|[one, other]| one.name == other.name) {
            return Err(RulesError::Duplicate { name: one.name.clone() });
        }
        let both = || policies.iter().flat_map(|policy| [&policy.permissions, &policy.principals]);
        let depth = both().map(Conditions::depth).max().unwrap_or_default();
        if depth > limits::RBAC_DEPTH_MAX {
            return Err(RulesError::TooDeep { depth, max: limits::RBAC_DEPTH_MAX });
        }
        let conditions = both().map(Conditions::count).sum();
        if conditions > limits::RBAC_CONDITIONS_MAX {
            return Err(RulesError::TooMany { conditions, max: limits::RBAC_CONDITIONS_MAX });
        }
        Ok(Rules { action, policies: policies.into() })
    }

    /// What the policies do to those that they match.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The policies by name.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// What the rules say of a request or a connection.
    pub fn evaluate(&self, facts: &Facts<'_>, scratch: &mut RouteScratch) -> Verdict<'_> {
        let lean = match self.action {
            Action::Allow => Lean::Fail,
            Action::Deny | Action::Log => Lean::Hold,
        };
        let mut policies = self.policies.iter();
        let matched = policies.find(|policy| {
            policy.principals.any(facts, lean, scratch) && policy.permissions.any(facts, lean, scratch)
        });
        Verdict { action: self.action, policy: matched.map(|policy| &policy.name) }
    }
}

impl Lean {
    /// The way below a negation.
    fn turned(self) -> Lean {
        match self {
            Lean::Hold => Lean::Fail,
            Lean::Fail => Lean::Hold,
        }
    }

    /// The same, if `is_turned`.
    fn turned_if(self, is_turned: bool) -> Lean {
        if is_turned { self.turned() } else { self }
    }

    /// What a test says that cannot be made.
    fn in_doubt(self) -> bool {
        self == Lean::Hold
    }
}

#[cfg(test)]
mod tests;
