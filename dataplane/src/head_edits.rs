//! The configured header edits of a route as `wire` wants them, plus the headers that the proxy itself adds.
//!
//! The list is built per exchange in memory that the connection keeps, so it allocates nothing in steady state.

use policy::{
    network_filter::{HttpConnectionManager, ServerHeader},
    route::{self, HeaderEdits},
};
use wire::{
    head::{Known, RequestView, ResponseView},
    http1::encode::Edit,
};

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
    /// The downstream's IP address.
    pub address: &'a [u8],
    /// An id for a request that came without.
    pub request_id: &'a [u8],
}

/// Edits of a request on its way upstream. What the proxy adds comes before what is configured, as in Envoy, so that the
/// configuration can change it.
pub fn request<'a>(
    view: RequestView<'_>,
    edits: &'a HeaderEdits,
    config: &HttpConnectionManager,
    forwarded: &Forwarded<'a>,
    list: &mut EditList<'a>,
) {
    let is_present = |name: &[u8]| view.header_values(name).next().is_some();
    if config.use_remote_address {
        list.0.push(Edit::Append { name: b"x-forwarded-for", value: forwarded.address });
        list.0.push(Edit::Set { name: b"x-forwarded-proto", value: b"http" });
    } else if !is_present(b"x-forwarded-proto") {
        list.0.push(Edit::Append { name: b"x-forwarded-proto", value: b"http" });
    }
    if config.generate_request_id && !is_present(b"x-request-id") {
        list.0.push(Edit::Append { name: b"x-request-id", value: forwarded.request_id });
    }
    list.configured(edits, |name| is_present(name.as_bytes()));
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
