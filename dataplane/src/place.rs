//! The place of a connection that lives in a snapshot, which may be another one than that under which it was made.
//!
//! Rules, routes and who is trusted are those of the filter chain that has the connection; so a chain that would have secured
//! it otherwise, or not at all, may not have it.

use policy::filter_chain::FilterChain;

use crate::{origin::Origin, worker::Bound};

/// Why a connection has no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misplaced {
    /// Its listener is gone, or its filter chain, or that does something else now. What is under way may go on as it began.
    Gone,
    /// It is not secured as is asked for now: nothing more begins on it.
    Insecure,
}

/// The filter chain that has a connection.
pub(crate) fn of<'a>(bound: &'a Bound, origin: &Origin) -> Result<&'a FilterChain, Misplaced> {
    let listener = bound.snapshot.listeners.get(&origin.listener).ok_or(Misplaced::Gone)?;
    let chain = origin.pick(&listener.filter_chains).ok_or(Misplaced::Gone)?;
    let is_secured = match (&chain.tls, &origin.tls) {
        (None, None) => true,
        // Without what the chain needs nobody would be taken either.
        (Some(tls), Some(known)) => bound.tls.server(tls).is_some_and(|tls| tls.is_met_by(&known.terms)),
        _ => false,
    };
    if is_secured { Ok(chain) } else { Err(Misplaced::Insecure) }
}
