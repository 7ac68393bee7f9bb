//! xDS protobufs to `policy` types, or why not.
//!
//! Two steps, both pure. Translation looks at one resource: [`listener`], [`route`], [`cluster`], [`endpoint`]; it
//! checks everything that can be wrong in it, since nothing checked `validate.rules` before. [`assemble`] puts
//! accepted resources together to the next snapshot and cannot fail. [`bootstrap`] reads the operator's file, whose static
//! resources are translated by the same functions.
//!
//! Resources come from an operator's file or from an authenticated control plane; they may be wrong, never hostile on
//! purpose, and still no input panics.
//!
//! # What is not known
//!
//! - An extension of unknown type rejects its resource, with the supported ones in the reason. An HTTP filter marked
//!   `is_optional` is dropped instead.
//! - A field that narrows trust or authorization (TLS, RBAC, forwarded certificates) is never ignored.
//! - Any other field that Ringway has nothing for rejects its resource when ignoring it would change what happens to
//!   traffic. Each translating function lists, where it refuses fields, those it accepts without effect, and why.
//! - A field that this version of the API does not have is accepted, as the xDS protocol wants it, except in rules of
//!   authorization. In a bootstrap file the parser has refused it before ([`proto::bootstrap`]).

pub mod assemble;
pub mod bootstrap;
pub mod cluster;
pub mod endpoint;
pub mod listener;
pub mod overload;
pub mod reject;
pub mod route;
pub mod tls;

mod config_source;
mod dynamic_forward;
mod fields;
mod header;
mod http;
mod http2;
mod protocol_options;
mod rbac;
mod resource;
mod route_match;
mod route_timeouts;
mod taken;
mod transport_socket;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use reject::{Fault, Reason, Rejected};
pub use resource::resource;

/// What translation must know beside the resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The bootstrap file. It cannot be replaced or removed, and it is held to what Ringway really does: what a
    /// control plane may ask for as a best effort is refused here.
    Static,
    /// The control plane.
    Dynamic,
}

/// Names to ask the control plane for, each with the time that its first answer is waited for; `None` is for ever
/// (Envoy: `initial_fetch_timeout`).
pub type Wanted = BTreeMap<Arc<str>, Option<Duration>>;

/// Adds a name that is wanted once more. Who waits longer is waited for.
pub(crate) fn want(wanted: &mut Wanted, name: &Arc<str>, timeout: Option<Duration>) {
    let longest = wanted.entry(name.clone()).or_insert(timeout);
    *longest = longest.zip(timeout).map(|(one, other)| one.max(other));
}

/// A translated resource with the names it refers to.
#[derive(Debug)]
pub struct Referring<T> {
    /// What it was translated to.
    pub value: Arc<T>,
    /// Clusters that it sends traffic to.
    pub clusters: BTreeSet<Arc<str>>,
    /// Route tables that it needs by RDS.
    pub route_tables: Wanted,
    /// Secrets that it needs by SDS.
    pub secrets: Wanted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_for_a_name_decides_how_long_it_is_waited_for() {
        let seconds = |count| Some(Duration::from_secs(count));
        for (one, other, longest) in [
            (seconds(1), seconds(1), seconds(1)),
            (seconds(1), seconds(9), seconds(9)),
            (None, seconds(9), None),
            (seconds(9), None, None),
        ] {
            let mut wanted = Wanted::new();
            want(&mut wanted, &"s".into(), one);
            want(&mut wanted, &"s".into(), other);
            assert_eq!(wanted, Wanted::from([("s".into(), longest)]), "{one:?} {other:?}");
        }
    }
}
