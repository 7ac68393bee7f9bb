//! One case: bytes of a connection, what their author says of them, and what we say.

use std::fmt;

use fuzz::{
    connection::{read_within, ways_to_cut},
    message::{Framing, Message, Rest, Start},
    reference::Side,
};
use wire::http1::parse::Limits;

/// Larger than all of theirs.
const LIMITS: Limits = Limits { head_bytes_max: 60 * 1024, headers_count_max: 100, target_bytes_max: 8192 };

/// Bytes, and what is said of them.
#[derive(Debug)]
pub(crate) struct Case {
    /// File and heading.
    pub(crate) name: String,
    pub(crate) side: Side<'static>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What a reader gets from a connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Expected {
    pub(crate) messages: Vec<Told>,
    /// What follows is an error.
    pub(crate) is_error: bool,
}

/// One message, of which the head at least is there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Told {
    /// Of a request.
    pub(crate) method: String,
    pub(crate) target: String,
    /// Of a response.
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Names and values, without white space around.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) is_whole: bool,
}

/// What is to be said of us.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// We say the same.
    Same,
    /// We refuse it, or read it otherwise.
    Stricter(String),
    /// We take an error.
    Weaker(String),
}

impl Case {
    pub(crate) fn judge(&self) -> Judgement {
        let (connection, begun) = read_within(&LIMITS, &self.bytes, self.side, []);
        let every_cut = (1..self.bytes.len()).map(|cut| vec![cut]);
        for pieces in every_cut.chain(ways_to_cut(&self.bytes)) {
            let cut = read_within(&LIMITS, &self.bytes, self.side, pieces.iter().copied());
            assert_eq!(cut, (connection.clone(), begun.clone()), "{self}cut at {pieces:?}");
        }
        let is_refused = matches!(connection.rest, Rest::Refused(_));
        let told = |(message, is_whole): (&Message, bool)| self.told(message, is_whole);
        let whole = connection.messages.iter().map(|message| (message, true));
        let ours: Vec<Told> = whole.chain(begun.iter().map(|message| (message, false))).map(told).collect();
        let theirs = &self.expected.messages;
        let how = format!("  theirs: {theirs:?}\n  ours: {ours:?}, then {:?}\n", connection.rest);
        match (self.expected.is_error, is_refused) {
            // After the last message of a connection we read nothing, so nothing is an error.
            (true, false) if connection.rest == Rest::Unread && ours.len() <= theirs.len() => Judgement::Same,
            // The error is in a head of which we have a part, and we tell when we have all.
            (true, false)
                if connection.rest == Rest::Part && begun.is_none() && self.is_refused_when_whole() =>
            {
                Judgement::Same
            }
            (true, false) => Judgement::Weaker(how),
            (false, true) => Judgement::Stricter(how),
            // Of what came before the error, theirs tell the parts as well.
            (true, true) if theirs.starts_with(&ours) => Judgement::Same,
            (false, false) if ours == *theirs => Judgement::Same,
            (true, true) | (false, false) => Judgement::Stricter(how),
        }
    }

    /// However the head goes on.
    fn is_refused_when_whole(&self) -> bool {
        ["\r\n\r\n", "\r\n", "\n", " \r\n\r\n", ": a\r\n\r\n", "\na: b\r\n\r\n"].iter().all(|end| {
            let bytes = [&self.bytes, end.as_bytes()].concat();
            let (connection, begun) = read_within(&LIMITS, &bytes, self.side, []);
            begun.is_none() && matches!(connection.rest, Rest::Refused(_) | Rest::Part)
        })
    }

    fn told(&self, message: &Message, is_whole: bool) -> Told {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let headers = message.head.headers.iter().map(|(name, value)| (text(name), text(value)));
        // Without a length, it is whole when the connection ends, which they are not told.
        let is_whole = is_whole && message.head.framing != Framing::UntilClose;
        let mut told =
            Told { headers: headers.collect(), body: text(&message.body), is_whole, ..Told::default() };
        match &message.head.start {
            Start::Request { method, path, query, .. } => {
                told.method = text(method);
                let query = query.as_ref().map(|query| format!("?{}", text(query)));
                told.target = format!("{}{}", text(path), query.unwrap_or_default());
            }
            Start::Response { status, reason } => {
                told.status = *status;
                told.reason = text(reason);
            }
        }
        told
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  {}", self.name, self.bytes.escape_ascii())
    }
}
