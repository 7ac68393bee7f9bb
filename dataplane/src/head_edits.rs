//! The configured header edits of a route as `wire` wants them, plus the headers that the proxy itself adds.
//!
//! The list is built per exchange in memory that the connection keeps, so it allocates nothing in steady state.

use std::io::Write as _;

use policy::{
    client_cert::FORWARDED_CLIENT_CERT,
    forwarded::{ClientAddress, FORWARDED_FOR, FORWARDED_PROTO},
    network_filter::{HttpConnectionManager, ServerHeader},
    route::{self, HeaderEdits},
};
use wire::{
    head::{Known, RequestView, ResponseView},
    http1::encode::Edit,
};

use crate::origin::Origin;

/// Edits for one head, in borrowed memory.
pub struct EditList<'a>(Vec<Edit<'a>>);

impl<'a> EditList<'a> {
    /// An empty list in the memory that `place` keeps between exchanges.
    pub fn take(place: &mut Vec<Edit<'static>>) -> EditList<'a> {
        EditList(std::mem::take(place))
    }

    /// Gives the memory back.
    pub fn give_back(self, place: &mut Vec<Edit<'static>>) {
        // Nothing borrowed is left in an emptied vector. Collecting in place keeps the allocation; the counting
        // allocator's test would notice if it did not.
        *place = self.0.into_iter().take(0).map(|_| Edit::Remove(b"")).collect();
    }

    /// The edits in order.
    pub fn as_slice(&self) -> &[Edit<'a>] {
        &self.0
    }

    /// Adds one edit behind the others.
    pub fn push(&mut self, edit: Edit<'a>) {
        self.0.push(edit);
    }

    /// Gives a header this value. Adding is cheaper where there is nothing to leave out.
    fn set(&mut self, is_present: bool, name: &'a [u8], value: &'a [u8]) {
        self.0.push(if is_present { Edit::Set { name, value } } else { Edit::Append { name, value } });
    }

    /// Adds the configured edits.
    fn configured(&mut self, edits: &'a HeaderEdits, is_present: impl FnMut(&str) -> bool) {
        if edits.is_empty() {
            return;
        }
        edits.for_each(is_present, |edit| {
            self.0.push(match edit {
                route::Edit::Remove(name) => Edit::Remove(name.as_bytes()),
                route::Edit::Add(name, value) => Edit::Append { name: name.as_bytes(), value },
            });
        });
    }
}

/// What the proxy tells upstream about where a request came from.
pub struct Forwarded<'a> {
    /// `x-forwarded-for`, where it changes.
    chain: Option<&'a [u8]>,
    /// The client's address, where we are the edge.
    client: Option<&'a [u8]>,
    /// An id for a request that came without.
    request_id: &'a [u8],
    /// The scheme of what is asked for.
    scheme: &'static str,
    /// Who called, by its certificate.
    client_cert: Option<&'a [u8]>,
    /// What others told of that is passed on.
    passes_client_cert: bool,
}

impl<'a> Forwarded<'a> {
    /// Works it out for one request; `memory` is the connection's.
    pub fn write(
        view: RequestView<'_>,
        config: &HttpConnectionManager,
        origin: &'a Origin,
        request_id: &'a [u8],
        memory: &'a mut Vec<u8>,
    ) -> Forwarded<'a> {
        let trust = &config.forwarded;
        memory.clear();
        if trust.use_remote_address && !trust.skip_append {
            trust.append_to(&view, &origin.remote_text, memory);
        }
        let chain_end = memory.len();
        if trust.use_remote_address
            && let ClientAddress::Forwarded(ip) = trust.client(&view, origin.remote)
        {
            let _ = write!(memory, "{ip}");
        }
        let client_end = memory.len();
        let peer = origin.identity();
        if let Some(peer) = peer.filter(|_| config.forward_client_cert.tells()) {
            config.client_cert_details.write(peer, origin.own_name(), memory);
        }
        let (chain, rest) = memory.split_at(chain_end);
        let (client, cert) = rest.split_at(client_end - chain_end);
        let client = if client.is_empty() { origin.remote_text.as_bytes() } else { client };
        Forwarded {
            chain: (trust.use_remote_address && !trust.skip_append).then_some(chain),
            client: trust.use_remote_address.then_some(client),
            request_id,
            scheme: origin.scheme(),
            client_cert: (!cert.is_empty()).then_some(cert),
            passes_client_cert: config.forward_client_cert.passes_on(peer),
        }
    }
}

const EXTERNAL_ADDRESS: &[u8] = b"x-envoy-external-address";

/// Which of the headers that the proxy writes a request has already.
#[derive(Default)]
struct Present {
    forwarded_for: bool,
    forwarded_proto: bool,
    internal: bool,
    external_address: bool,
    request_id: bool,
}

impl Present {
    /// One look at the names, since most requests have none of them.
    fn of(view: RequestView<'_>) -> Present {
        let mut present = Present::default();
        for header in view.head.headers.iter().filter(|header| header.known == Known::Other) {
            let is = |name: &[u8]| header.name.of(view.bytes).eq_ignore_ascii_case(name);
            match header.name.len() {
                12 => present.request_id |= is(b"x-request-id"),
                15 => present.forwarded_for |= is(FORWARDED_FOR),
                16 => present.internal |= is(b"x-envoy-internal"),
                17 => present.forwarded_proto |= is(FORWARDED_PROTO),
                24 => present.external_address |= is(EXTERNAL_ADDRESS),
                _ => {}
            }
        }
        present
    }
}

/// Edits of a request on its way upstream. What the proxy adds comes before what is configured, as in Envoy, so that the
/// configuration can change it.
pub fn request<'a>(
    view: RequestView<'a>,
    edits: &'a HeaderEdits,
    config: &HttpConnectionManager,
    forwarded: &Forwarded<'a>,
    list: &mut EditList<'a>,
) {
    let present = Present::of(view);
    // A request that says that it comes from inside says so of itself.
    if present.internal {
        list.0.push(Edit::Remove(b"x-envoy-internal"));
    }
    if let Some(chain) = forwarded.chain {
        list.set(present.forwarded_for, FORWARDED_FOR, chain);
    }
    if let Some(client) = forwarded.client {
        list.set(present.external_address, EXTERNAL_ADDRESS, client);
    }
    if config.forwarded.replaces_proto() || !present.forwarded_proto {
        list.set(present.forwarded_proto, FORWARDED_PROTO, forwarded.scheme.as_bytes());
    }
    // It never goes on by itself, so what shall is added.
    if forwarded.passes_client_cert {
        for value in view.header_values(FORWARDED_CLIENT_CERT) {
            list.0.push(Edit::Append { name: FORWARDED_CLIENT_CERT, value });
        }
    }
    if let Some(value) = forwarded.client_cert {
        list.0.push(Edit::Append { name: FORWARDED_CLIENT_CERT, value });
    }
    let is_foreign = config.forwarded.use_remote_address && !config.preserve_external_request_id;
    if config.generate_request_id && (is_foreign || !present.request_id) {
        list.set(present.request_id, b"x-request-id", forwarded.request_id);
    }
    list.configured(edits, |name| view.header_values(name.as_bytes()).next().is_some());
}

/// Writes a random UUID (RFC 9562 version 4) from 128 random bits.
pub fn write_request_id(bits: [u64; 2], text: &mut [u8; 36]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits =
        (u128::from(bits[0]) << 64 | u128::from(bits[1])) & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let mut left = bits;
    for (at, place) in text.iter_mut().enumerate().rev() {
        *place = match at {
            8 | 13 | 18 | 23 => b'-',
            _ => {
                let digit = HEX[(left & 15) as usize];
                left >>= 4;
                digit
            }
        };
    }
}

/// Edits of a response on its way downstream.
pub fn response<'a>(
    view: ResponseView<'_>,
    edits: &'a HeaderEdits,
    server: &'a ServerHeader,
    list: &mut EditList<'a>,
) {
    list.configured(edits, |name| view.header_values(name.as_bytes()).next().is_some());
    match server {
        ServerHeader::PassThrough => {}
        ServerHeader::AddIfAbsent(_)
            if view.head.headers.iter().any(|header| header.known == Known::Server) => {}
        ServerHeader::Overwrite(name) | ServerHeader::AddIfAbsent(name) => {
            list.0.push(Edit::Set { name: b"server", value: name.as_bytes() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_of_version_4_whatever_the_bits() {
        for (bits, expected) in [
            ([0, 0], "00000000-0000-4000-8000-000000000000"),
            ([u64::MAX, u64::MAX], "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            ([0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdef], "01234567-89ab-4def-8123-456789abcdef"),
        ] {
            let mut text = [0; 36];
            write_request_id(bits, &mut text);
            assert_eq!(str::from_utf8(&text).unwrap(), expected);
        }
    }
}
