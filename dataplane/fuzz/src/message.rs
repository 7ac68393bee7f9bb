//! What the proxy's readers and the reference readers make of the same bytes, so that the two can be compared.

use std::collections::BTreeSet;

/// One message as a reader understood it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// The head.
    pub head: Head,
    /// The body, without framing.
    pub body: Vec<u8>,
    /// The trailer lines that go further, each with its end.
    pub trailers: Vec<u8>,
    /// Where in the input the message ends.
    pub end: usize,
}

/// A request or response head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// What the first line says.
    pub start: Start,
    /// 0 or 1, the second digit of the version.
    pub version: u8,
    /// Names and values in order.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether another message may follow on the connection.
    pub keep_alive: bool,
    /// Where the body begins.
    pub end: usize,
}

/// A first line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// `method target version`.
    Request {
        /// The method.
        method: Vec<u8>,
        /// Path without query; `/` where an absolute target has none, nothing for `*` and CONNECT.
        path: Vec<u8>,
        /// Query without `?`.
        query: Option<Vec<u8>>,
        /// Host and port, of the target or of `Host`.
        authority: Vec<u8>,
        /// A 100 is waited for.
        expects_continue: bool,
        /// Another protocol is asked for.
        upgrade: bool,
    },
    /// `version status reason`.
    Response {
        /// The status.
        status: u16,
        /// The reason.
        reason: Vec<u8>,
    },
}

impl Default for Start {
    fn default() -> Self {
        Start::Response { status: 0, reason: Vec::new() }
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The rest of the connection.
    UntilClose,
}

/// The methods, statuses and ends of what stands on one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// The messages that are whole.
    pub messages: Vec<Message>,
    /// What follows them.
    pub rest: Rest,
}

/// What follows the last whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// The beginning of a message.
    Part,
    /// Something that is not read: the last message was the last one of the connection.
    Unread,
    /// No message, with the statuses that may be answered.
    Refused(BTreeSet<u16>),
}

/// What a reader says of the bytes it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read<T> {
    /// It is all there.
    Whole(T),
    /// More is needed.
    Part,
    /// It is wrong, with the statuses that may be answered: one for each thing that is wrong with it.
    Refused(BTreeSet<u16>),
}

impl<T> Read<T> {
    /// Wrong in one way.
    pub fn refused(status: u16) -> Read<T> {
        Read::Refused(BTreeSet::from([status]))
    }
}

/// Panics unless what the proxy read is what the reference read.
///
/// The proxy may refuse what the reference waits for, since it does not wait for the end of what is wrong already. But
/// then no end may make it good: `completions` are ends that would, and `again` is the reference.
pub fn assert_agree(
    bytes: &[u8],
    ours: &Connection,
    theirs: &Connection,
    completions: &[&[u8]],
    again: impl Fn(&[u8]) -> Connection,
) {
    let shown = bytes.escape_ascii();
    assert_eq!(ours.messages, theirs.messages, "of {shown}");
    match (&ours.rest, &theirs.rest) {
        (Rest::Refused(ours), Rest::Refused(theirs)) => {
            assert!(ours.is_subset(theirs), "refused with {ours:?} and not {theirs:?}: {shown}");
        }
        (Rest::Refused(_), Rest::Part) => {
            for completion in completions {
                let completed = again(&[bytes, completion].concat());
                let count = completed.messages.len();
                assert_eq!(
                    count,
                    theirs.messages.len(),
                    "refused too early, `{}` would make it whole: {shown}",
                    completion.escape_ascii()
                );
            }
        }
        (ours, theirs) => assert_eq!(ours, theirs, "what follows the whole messages of {shown}"),
    }
}
