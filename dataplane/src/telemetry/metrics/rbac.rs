//! Counters of what rules said.

use policy::rbac::{Action, Decision};

use super::{Counter, Kind};

block! {
    /// `rbac.*` of Envoy, below a connection manager or the prefix of a network filter.
    #[repr(align(128))]
    RbacCounters {
        /// Requests or connections that were allowed.
        Counter allowed,
        /// Those that were denied.
        Counter denied,
        /// Those that shadow rules would have allowed.
        Counter shadow_allowed,
        /// Those that they would have denied.
        Counter shadow_denied,
        /// Those that a policy notes.
        Counter logged,
        /// Those that rules for notes do not.
        Counter not_logged,
    }
}

impl RbacCounters {
    /// Counts what a filter said. As in Envoy, rules for notes count as rules that allow, too.
    pub fn count(&self, decision: &Decision<'_>) {
        if let Some(shadow) = decision.shadow {
            let counter = if shadow.is_allowed() { &self.shadow_allowed } else { &self.shadow_denied };
            counter.inc();
        }
        let Some(verdict) = decision.enforced else { return };
        if verdict.action == Action::Log {
            let counter = if verdict.policy.is_some() { &self.logged } else { &self.not_logged };
            counter.inc();
        }
        let counter = if verdict.is_allowed() { &self.allowed } else { &self.denied };
        counter.inc();
    }
}
