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
    /// 101 to a request that asked for it: send it on, then both directions are raw bytes.
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

/// Follows the response heads of one exchange until the final one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interim {
    count: u8,
    continued: bool,
}

impl Interim {
    /// Judges the next response head. `upgrade`: the request went upstream as an upgrade.
    pub fn receive(
        &mut self,
        response: &ResponseHead,
        downstream: Version,
        upgrade: bool,
    ) -> Result<Next, InterimError> {
        match response.status {
            101 if upgrade => return Ok(Next::Switch),
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
