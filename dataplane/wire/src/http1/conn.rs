//! What holds between messages: interim responses, and when a connection may carry another exchange.
//!
//! Pure rules over facts that the relay knows. When in doubt a connection is not used again: a wrong guess here gives
//! one request's bytes to another.

use super::encode::BodyOut;
use crate::head::{Framing, Method, RequestHead, ResponseHead, Version};

/// Most interim responses (1xx) to one request.
pub const INTERIM_COUNT_MAX: u8 = 16;

/// What to do with a response head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// An interim response: send it on, then read the next head.
    Relay,
    /// An interim response that the downstream must not see: read the next head.
    Drop,
    /// 101 to a request that asked for it, or success to CONNECT: send it on, then both directions are raw bytes.
    Switch,
    /// The final response.
    Final,
}

/// Why a response head is no answer to the request. The downstream gets 502, the upstream connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InterimError {
    /// More than [`INTERIM_COUNT_MAX`] interim responses.
    #[error("too many interim responses")]
    TooMany,
    /// 101 to a request that was not sent as an upgrade.
    #[error("upgrade that nobody asked for")]
    UnaskedUpgrade,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Asked {
    /// A response.
    #[default]
    Response,
    /// That the connection becomes something else (RFC 9110 §7.8).
    Upgrade,
    /// That it becomes a tunnel: CONNECT (RFC 9110 §9.3.6).
    Tunnel,
}

/// Follows the response heads of one exchange until the final one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interim {
    count: u8,
    continued: bool,
}

impl Interim {
    /// Judges the next response head. `asked`: what the request went upstream as.
    pub fn receive(
        &mut self,
        response: &ResponseHead,
        downstream: Version,
        asked: Asked,
    ) -> Result<Next, InterimError> {
        match response.status {
            101 if asked == Asked::Upgrade => return Ok(Next::Switch),
            200..300 if asked == Asked::Tunnel => return Ok(Next::Switch),
            101 => return Err(InterimError::UnaskedUpgrade),
            100..200 => {}
            _ => return Ok(Next::Final),
        }
        self.count += 1;
        if self.count > INTERIM_COUNT_MAX {
            return Err(InterimError::TooMany);
        }
        // 100 is said once; HTTP/1.0 knows no interim responses (RFC 9110 §15.2).
        let again = response.status == 100 && core::mem::replace(&mut self.continued, true);
        Ok(if again || downstream == Version::Http10 { Next::Drop } else { Next::Relay })
    }
}

/// How an exchange went on the wire when it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finished {
    /// The request body was received from downstream to its end.
    pub request_received: bool,
    /// The request, head and body, was sent upstream to its end.
    pub request_sent: bool,
    /// The response was received from upstream to its end.
    pub response_received: bool,
    /// The response was sent downstream to its end.
    pub response_sent: bool,
    /// Upstream sent bytes after the end of its response.
    pub upstream_surplus: bool,
    /// Upstream closed its sending side.
    pub upstream_closed: bool,
    /// Downstream closed its sending side; requests that it sent before are still answered.
    pub downstream_closed: bool,
}

impl Finished {
    /// Whether the upstream connection may go back to the pool. Not after a final response that came before the whole
    /// request was sent: what is missing would be read as the next request, or the next request as what is missing.
    pub fn upstream_reusable(&self, response: &ResponseHead) -> bool {
        response.keep_alive
            && self.request_sent
            && self.response_received
            && !self.upstream_surplus
            && !self.upstream_closed
    }

    /// Whether the downstream connection may carry the next request. Not when a part of the request body was never
    /// read: it would be taken for a request. `waiting_bytes`: received bytes beyond this request.
    pub fn downstream_reusable(&self, request: &RequestHead, body: BodyOut, waiting_bytes: usize) -> bool {
        request.keep_alive
            && request.method != Method::Connect
            && self.request_received
            && self.response_sent
            && body != BodyOut::UntilClose
            && (!self.downstream_closed || waiting_bytes > 0)
    }
}

/// Whether a response that goes out now must carry `Connection: close`, as far as the two heads and the progress of the
/// request body tell. A request with an expectation that was never met with 100 may or may not be followed by its
/// body, so nothing can be read after it (RFC 9110 §10.1.1).
pub fn must_close(request: &RequestHead, request_received: bool, body: BodyOut) -> bool {
    let no_body = matches!(request.framing, Framing::None | Framing::Length(0));
    !request.keep_alive || body == BodyOut::UntilClose || !(request_received || no_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Finished = Finished {
        request_received: true,
        request_sent: true,
        response_received: true,
        response_sent: true,
        upstream_surplus: false,
        upstream_closed: false,
        downstream_closed: false,
    };

    fn status(status: u16) -> ResponseHead {
        ResponseHead { status, keep_alive: true, ..ResponseHead::default() }
    }

    fn asking(framing: Framing) -> RequestHead {
        RequestHead { keep_alive: true, framing, ..RequestHead::default() }
    }

    #[test]
    fn interim_responses_are_relayed_once_counted_and_kept_from_old_downstreams() {
        let mut interim = Interim::default();
        // H1-15
        assert_eq!(interim.receive(&status(100), Version::Http11, Asked::Response), Ok(Next::Relay));
        assert_eq!(interim.receive(&status(100), Version::Http11, Asked::Response), Ok(Next::Drop));
        assert_eq!(interim.receive(&status(103), Version::Http11, Asked::Response), Ok(Next::Relay));
        assert_eq!(interim.receive(&status(103), Version::Http10, Asked::Response), Ok(Next::Drop));
        assert_eq!(interim.receive(&status(200), Version::Http11, Asked::Response), Ok(Next::Final));
        // H1-19
        let mut interim = Interim::default();
        for _ in 0..INTERIM_COUNT_MAX {
            assert_eq!(interim.receive(&status(102), Version::Http11, Asked::Response), Ok(Next::Relay));
        }
        let answer = interim.receive(&status(102), Version::Http11, Asked::Response);
        assert_eq!(answer, Err(InterimError::TooMany));
    }

    #[test]
    fn only_what_grants_what_was_asked_for_switches() {
        // H1-16
        use Asked::{Response, Tunnel, Upgrade};
        for (code, asked, expected) in [
            (101, Upgrade, Ok(Next::Switch)),
            (101, Response, Err(InterimError::UnaskedUpgrade)),
            (101, Tunnel, Err(InterimError::UnaskedUpgrade)),
            (200, Upgrade, Ok(Next::Final)),
            (401, Upgrade, Ok(Next::Final)),
            (200, Tunnel, Ok(Next::Switch)),
            (204, Tunnel, Ok(Next::Switch)),
            (407, Tunnel, Ok(Next::Final)),
            (200, Response, Ok(Next::Final)),
        ] {
            let answer = Interim::default().receive(&status(code), Version::Http11, asked);
            assert_eq!(answer, expected, "{code} {asked:?}");
        }
    }

    #[test]
    fn an_upstream_connection_goes_back_only_when_nothing_is_left_on_it() {
        // H1-14, H1-15, H1-18
        assert!(ALL.upstream_reusable(&status(200)));
        assert!(
            Finished { response_sent: false, downstream_closed: true, ..ALL }.upstream_reusable(&status(200))
        );
        for (case, facts) in [
            ("early answer", Finished { request_sent: false, ..ALL }),
            ("half a response", Finished { response_received: false, ..ALL }),
            ("bytes after the response", Finished { upstream_surplus: true, ..ALL }),
            ("closed", Finished { upstream_closed: true, ..ALL }),
        ] {
            assert!(!facts.upstream_reusable(&status(200)), "{case}");
        }
        assert!(!ALL.upstream_reusable(&ResponseHead { keep_alive: false, ..status(200) }));
    }

    #[test]
    fn a_downstream_connection_goes_on_only_at_a_message_boundary() {
        // H1-14, H1-22
        let request = asking(Framing::Length(3));
        assert!(ALL.downstream_reusable(&request, BodyOut::Length, 0));
        for (case, facts) in [
            ("unread body", Finished { request_received: false, ..ALL }),
            ("half a response", Finished { response_sent: false, ..ALL }),
            ("half-closed", Finished { downstream_closed: true, ..ALL }),
        ] {
            assert!(!facts.downstream_reusable(&request, BodyOut::Length, 0), "{case}");
        }
        let half_closed = Finished { downstream_closed: true, ..ALL };
        assert!(
            half_closed.downstream_reusable(&request, BodyOut::Length, 20),
            "a pipelined request is answered"
        );
        assert!(!ALL.downstream_reusable(&request, BodyOut::UntilClose, 0));
        let close = RequestHead { keep_alive: false, ..asking(Framing::None) };
        assert!(!ALL.downstream_reusable(&close, BodyOut::Length, 0));
        let connect = RequestHead { method: Method::Connect, ..asking(Framing::None) };
        assert!(!ALL.downstream_reusable(&connect, BodyOut::None, 0));
    }

    #[test]
    fn close_is_announced_when_the_next_request_could_not_be_told_from_this_body() {
        assert!(!must_close(&asking(Framing::None), false, BodyOut::Length));
        assert!(!must_close(&asking(Framing::Chunked), true, BodyOut::Length));
        assert!(must_close(&asking(Framing::Chunked), false, BodyOut::Length));
        assert!(must_close(&asking(Framing::None), true, BodyOut::UntilClose));
        assert!(must_close(&RequestHead { keep_alive: false, ..asking(Framing::None) }, true, BodyOut::None));
    }
}
