//! Readers that are slow and plain: they wait until all of something is there, cut it into lines, and ask one question
//! after the other, each with the place that demands it.
//!
//! "Ours" marks a rule of the proxy that is stricter than the RFC; `wire` gives the reasons.

pub mod body;
pub mod head;
pub mod hpack;
pub mod path;
mod text;

pub use text::is_disguised_identity;

use std::collections::BTreeSet;

use crate::message::{Connection, Framing, Message, Read, Rest, Start};
use head::Limits;

/// What is read on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side<'a> {
    /// Requests.
    Requests,
    /// Responses to requests with this method.
    Responses(&'a [u8]),
}

/// Reads one message after the other.
pub fn connection(bytes: &[u8], side: Side<'_>, limits: &Limits) -> Connection {
    let mut messages = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if rest.is_empty() {
            return Connection { messages, rest: Rest::Nothing };
        }
        match message(rest, side, limits) {
            Read::Whole(mut message) => {
                at += message.end;
                message.end = at;
                let last = is_last(&message, side);
                messages.push(message);
                if last {
                    let rest = if at == bytes.len() { Rest::Nothing } else { Rest::Unread };
                    return Connection { messages, rest };
                }
            }
            Read::Part => return Connection { messages, rest: Rest::Part },
            Read::Refused(statuses) => return Connection { messages, rest: refused(statuses, side) },
        }
    }
}

/// The answer to who asked: whatever is wrong with a response, it is that of a bad gateway.
pub(crate) fn refused(statuses: BTreeSet<u16>, side: Side<'_>) -> Rest {
    Rest::Refused(match side {
        Side::Requests => statuses,
        Side::Responses(_) => BTreeSet::from([502]),
    })
}

fn message(bytes: &[u8], side: Side<'_>, limits: &Limits) -> Read<Message> {
    let head = match head::read(bytes, side, limits) {
        Read::Whole(head) => head,
        Read::Part => return Read::Part,
        Read::Refused(statuses) => return Read::Refused(statuses),
    };
    let after = &bytes[head.end..];
    let begins = head.end;
    let whole = |body: &[u8], trailers: Vec<u8>, taken: usize| {
        Read::Whole(Message { head: head.clone(), body: body.to_vec(), trailers, end: begins + taken })
    };
    match head.framing {
        Framing::None => whole(b"", Vec::new(), 0),
        Framing::Length(length) => {
            match usize::try_from(length).ok().and_then(|length| after.get(..length)) {
                Some(body) => whole(body, Vec::new(), body.len()),
                None => Read::Part,
            }
        }
        Framing::UntilClose => whole(after, Vec::new(), after.len()),
        Framing::Chunked => match body::read(after, &limits.trailers) {
            Read::Whole(chunked) => whole(&chunked.data, chunked.trailers, chunked.end),
            Read::Part => Read::Part,
            Read::Refused(statuses) => Read::Refused(statuses),
        },
    }
}

/// Whether nothing is read after this message.
fn is_last(message: &Message, side: Side<'_>) -> bool {
    match (&message.head.start, side) {
        (Start::Request { method, .. }, _) => !message.head.keep_alive || method == b"CONNECT",
        (Start::Response { status: 101, .. }, _) => true,
        // After an interim response comes another, whatever it says of the connection (RFC 9110 §15.2).
        (Start::Response { status: 100..=199, .. }, _) => false,
        (Start::Response { .. }, _) => !message.head.keep_alive,
    }
}

/// All the statuses for which `ask` found a reason.
#[derive(Default)]
pub(crate) struct Faults(BTreeSet<u16>);

impl Faults {
    pub(crate) fn unless(&mut self, is_good: bool, status: u16) {
        if !is_good {
            self.0.insert(status);
        }
    }

    pub(crate) fn or<T>(self, value: T) -> Read<T> {
        if self.0.is_empty() { Read::Whole(value) } else { Read::Refused(self.0) }
    }
}
