//! What a connection may become: which upgrades a connection manager and a route let pass, and what becomes of CONNECT.

use alloc::{sync::Arc, vec::Vec};

/// The kind that plain CONNECT counts as. An extended CONNECT (RFC 8441) counts as the kind that its `:protocol` names.
pub const CONNECT: &[u8] = b"connect";

/// Upgrades that are allowed or forbidden, at a connection manager or a route (Envoy: `upgrade_configs`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Upgrades {
    /// Kinds in lower case. They are few, so a list is searched as fast as anything else.
    rules: Arc<[(Arc<[u8]>, bool)]>,
    connect: Connect,
}

/// What becomes of a CONNECT that is allowed (Envoy: `connect_config`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Connect {
    /// It is sent to the upstream, which is a proxy too.
    #[default]
    Forward,
    /// It ends here: its payload goes to the upstream as a plain TCP connection.
    Terminate,
}

/// A kind of upgrade is there twice; case makes no difference.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("upgrade {position} has the kind of one before it")]
pub struct DuplicateUpgrade {
    /// Position of the second.
    pub position: usize,
}

impl Upgrades {
    /// Kinds, each with whether it is allowed.
    ///
    /// # Errors
    /// When a kind is there twice.
    pub fn new<'a>(
        kinds: impl IntoIterator<Item = (&'a [u8], bool)>,
        connect: Connect,
    ) -> Result<Upgrades, DuplicateUpgrade> {
        let mut rules: Vec<(Arc<[u8]>, bool)> = Vec::new();
        for (position, (kind, is_allowed)) in kinds.into_iter().enumerate() {
            let kind = kind.to_ascii_lowercase();
            if rules.iter().any(|(known, _)| **known == *kind) {
                return Err(DuplicateUpgrade { position });
            }
            rules.push((kind.into(), is_allowed));
        }
        Ok(Upgrades { rules: rules.into(), connect })
    }

    /// Whether a route with these lets an upgrade of this kind pass. What it says nothing of is the connection manager's to
    /// say, and what that says nothing of is forbidden. `kind` is one protocol of an `Upgrade` header, what `:protocol` says,
    /// or [`CONNECT`].
    pub fn allows(&self, manager: &Upgrades, kind: &[u8]) -> bool {
        self.rule(kind).or_else(|| manager.rule(kind)).unwrap_or(false)
    }

    /// What becomes of a CONNECT that takes a route with these.
    pub fn connect(&self) -> Connect {
        self.connect
    }

    /// The kinds, in lower case, each with whether it is allowed.
    pub fn rules(&self) -> impl Iterator<Item = (&[u8], bool)> {
        self.rules.iter().map(|(kind, is_allowed)| (&**kind, *is_allowed))
    }

    fn rule(&self, kind: &[u8]) -> Option<bool> {
        self.rules().find(|(known, _)| known.eq_ignore_ascii_case(kind)).map(|(_, is_allowed)| is_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrades(kinds: &[(&'static str, bool)]) -> Upgrades {
        let kinds = kinds.iter().map(|(kind, is_allowed)| (kind.as_bytes(), *is_allowed));
        Upgrades::new(kinds, Connect::Forward).unwrap()
    }

    #[test]
    fn a_route_goes_before_the_connection_manager_and_silence_forbids() {
        let manager = upgrades(&[("WebSocket", true), ("foo", false)]);
        let route = upgrades(&[("foo", true), ("bar", true), ("CONNECT", true)]);
        let strict = upgrades(&[("websocket", false)]);
        let silent = Upgrades::default();
        for (of, kind, expected) in [
            (&silent, "websocket", true),
            (&silent, "WEBSOCKET", true),
            (&silent, "foo", false),
            (&silent, "bar", false),
            (&silent, "", false),
            (&route, "websocket", true),
            (&route, "Foo", true),
            (&route, "bar", true),
            (&route, "connect", true),
            (&route, "websocket2", false),
            (&strict, "websocket", false),
        ] {
            assert_eq!(of.allows(&manager, kind.as_bytes()), expected, "{kind} of {of:?}");
        }
        assert!(silent.allows(&route, CONNECT) && !silent.allows(&silent, CONNECT));
    }

    #[test]
    fn a_kind_is_there_once() {
        let kinds = [(&b"a"[..], true), (b"b", true), (b"A", false)];
        assert_eq!(Upgrades::new(kinds, Connect::Forward), Err(DuplicateUpgrade { position: 2 }));
    }
}
