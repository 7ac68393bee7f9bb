//! What comes back to a client.

use runtime::Io;
use sim::{
    Peer, Verdict,
    http::{Event, Message, Parser},
};

/// The origin's own answer, whole and right.
#[track_caller]
pub(crate) fn ok(verdict: Verdict) -> Message {
    match verdict {
        Verdict::Ok(answer) => answer,
        other => panic!("no answer of the origin: {other:?}"),
    }
}

/// The proxy's own answer: its status and reason.
#[track_caller]
pub(crate) fn refused(verdict: Verdict) -> (u16, String) {
    match verdict {
        Verdict::Refused(answer) => {
            (answer.status(), answer.header("x-ringway-reason").unwrap_or_default().to_owned())
        }
        other => panic!("no answer of the proxy: {other:?}"),
    }
}

/// The next answers on a connection, to requests with these methods; interim ones are left out.
pub(crate) async fn answers<I: Io>(peer: &mut Peer<I>, methods: &[&str]) -> Vec<Message> {
    let mut parser = Parser::responses();
    methods.iter().for_each(|method| parser.expect_answer_to(method));
    let mut answers = Vec::new();
    while answers.len() < methods.len() {
        let Some(bytes) = peer.recv_some().await else {
            answers.extend(parser.finish().unwrap_or_else(|malformed| panic!("{malformed}")));
            break;
        };
        parser.receive(&bytes);
        while let Some(event) = parser.next_event().unwrap_or_else(|malformed| panic!("{malformed}")) {
            match event {
                Event::Whole(message) if message.status() >= 200 => answers.push(message),
                Event::Whole(_) | Event::Head => {}
            }
        }
    }
    assert!(parser.unread().is_empty(), "more than the answers came");
    answers
}
