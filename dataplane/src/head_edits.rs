//! The configured header edits of a route as `wire` wants them, plus the headers that the proxy itself adds.
//!
//! The list is built per exchange in memory that the connection keeps, so it allocates nothing in steady state.

use policy::{
    network_filter::ServerHeader,
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

/// Edits of a request on its way upstream.
pub fn request<'a>(view: RequestView<'_>, edits: &'a HeaderEdits, list: &mut EditList<'a>) {
    list.configured(edits, |name| view.header_values(name.as_bytes()).next().is_some());
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
