//! A machine of the mesh on which no control plane runs: it joins with a token, keeps an identity of its own, and serves the
//! proxies and workloads on it as the control plane would, over a unix socket whose bytes it carries there.

mod address;
mod agent;
mod identity;
mod tls;
mod token;

pub(crate) use address::{advertise, advertised};
pub use agent::{Agent, AgentOptions, JoinError};
pub use identity::IdentityError;
pub use token::{JoinToken, RootHash, TokenError};

#[cfg(test)]
mod tests;
