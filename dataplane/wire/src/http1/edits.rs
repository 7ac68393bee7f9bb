//! Header changes, and which headers end at this hop (RFC 9110 §7.6.1). Tested through `encode`.

use super::fields::{classify, is_disguised, is_token, is_value, list};
use crate::head::{ConnectionOptions, Header, Known};

/// One change to the headers. A list of them means what it means applied in order.
///
/// An edit cannot break a message: one that names a header which frames or routes it or governs the connection is
/// passed over, and so is one whose name or value holds a byte that must not be on the wire. (A `Set` of the latter kind
/// adds nothing and still leaves out what was received: that was not to be trusted.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit<'a> {
    /// Leaves out every header of this name.
    Remove(&'a [u8]),
    /// Leaves out every header of this name and adds one (Envoy: `OVERWRITE_IF_EXISTS_OR_ADD`).
    Set {
        /// Name as it shall be sent.
        name: &'a [u8],
        /// Value without surrounding white space.
        value: &'a [u8],
    },
    /// Adds a header line after those that are there (Envoy: `APPEND_IF_EXISTS_OR_ADD`).
    Append {
        /// Name as it shall be sent.
        name: &'a [u8],
        /// Value without surrounding white space.
        value: &'a [u8],
    },
}

/// Decides about the header lines that the proxy itself does not act on.
pub(crate) struct Filter<'a> {
    headers: &'a [Header],
    bytes: &'a [u8],
    edits: &'a [Edit<'a>],
    /// `Connection` names headers, which end here.
    nominates: bool,
    /// There are edits that leave out headers.
    removes: bool,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(
        headers: &'a [Header],
        bytes: &'a [u8],
        options: ConnectionOptions,
        edits: &'a [Edit<'a>],
    ) -> Filter<'a> {
        let removes = edits.iter().any(|edit| !matches!(edit, Edit::Append { .. }));
        Filter { headers, bytes, edits, nominates: options.names, removes }
    }

    /// Whether a line that the proxy does not act on goes further.
    pub(crate) fn keeps(&self, header: &Header) -> bool {
        if !self.nominates && !self.removes {
            return true;
        }
        let name = header.name.of(self.bytes);
        let removed = self.removes && is_removed(self.edits, name);
        let ends_here = self.nominates && ends_here(self.headers, self.bytes, name);
        !removed && !ends_here
    }

    /// Gives name and value of the headers that the edits add and no later edit takes away.
    pub(crate) fn for_added(&self, mut add: impl FnMut(&[u8], &[u8])) {
        for (at, edit) in self.edits.iter().enumerate() {
            let (Edit::Set { name, value } | Edit::Append { name, value }) = edit else { continue };
            let later = self.edits.get(at + 1..).unwrap_or_default();
            if is_editable(name) && is_clean(name, value) && !is_removed(later, name) {
                add(name, value);
            }
        }
    }
}

/// Whether `Connection` names a header that is the peer's to take away.
pub(crate) fn ends_here(headers: &[Header], bytes: &[u8], name: &[u8]) -> bool {
    let lines = headers.iter().filter(|header| header.known == Known::Connection);
    let mut options = lines.flat_map(|line| list(line.value.of(bytes)));
    !is_identity(name) && options.any(|option| option.eq_ignore_ascii_case(name))
}

fn is_removed(edits: &[Edit<'_>], name: &[u8]) -> bool {
    edits.iter().any(|edit| match edit {
        Edit::Remove(other) | Edit::Set { name: other, .. } => other.eq_ignore_ascii_case(name),
        Edit::Append { .. } => false,
    })
}

/// Headers that a peer must not make us drop by naming them in `Connection`, nor send after a body: they frame, route,
/// or say who asks. Those before us may have set them; what they say is not the peer's to take away.
pub(super) fn is_identity(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [b"host", b"forwarded", b"via", b"x-request-id", b"x-real-ip"];
    const PREFIXES: [&[u8]; 4] = [b"content-", b"x-forwarded-", b"x-envoy-", b"x-ringway-"];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// Whether edits may name this header: not what frames or routes the message, or governs the connection.
pub fn is_editable(name: &[u8]) -> bool {
    match classify(name) {
        Known::Other => !is_disguised(name),
        Known::Date
        | Known::Server
        | Known::ProxyAuthenticate
        | Known::ProxyAuthorization
        | Known::ForwardedClientCert
        | Known::DisguisedIdentity => true,
        _ => false,
    }
}

pub(crate) fn is_clean(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token(*byte)) && value.iter().all(|byte| is_value(*byte))
}
