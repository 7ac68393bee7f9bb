//! Whether a request is sent again when an attempt failed, and where not to. Pure: the exchange tells how far it came.
//!
//! Two kinds of attempts are bounded apart: those that found nobody there, each at another endpoint, and those over
//! connections that had been idle and turned out to be closed, each of which uses one of them up.

use policy::{endpoint::EndpointId, limits};

use crate::{
    exchange::Failed,
    respond::{ExchangeError, Phase},
};

/// The attempts of one exchange.
pub struct Attempts {
    connects_max: usize,
    repeats_left: usize,
    has_begun: bool,
    /// The endpoints that took no byte of the request, as many as `failed_count` says.
    failed: [EndpointId; limits::CONNECT_ATTEMPTS_MAX],
    failed_count: usize,
    /// Why the last of them did not.
    error: Option<ExchangeError>,
}

/// What is known of an attempt that failed, beside how far it came.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The connection had carried an exchange and been idle.
    pub was_idle: bool,
    /// The request does no harm when it is run twice, and all of it is still there to be sent.
    pub can_repeat: bool,
}

/// Repeats after a pooled connection turned out to be closed.
const REPEATS_MAX: usize = limits::POOL_IDLE_PER_ENDPOINT_MAX;

impl Attempts {
    /// None made yet, of which so many more than one may find nobody there.
    pub fn new(connect_retries: u8) -> Attempts {
        Attempts {
            connects_max: (usize::from(connect_retries) + 1).min(limits::CONNECT_ATTEMPTS_MAX),
            repeats_left: REPEATS_MAX,
            has_begun: false,
            failed: [EndpointId(0); limits::CONNECT_ATTEMPTS_MAX],
            failed_count: 0,
            error: None,
        }
    }

    /// An attempt begins; whether there was one before.
    pub fn begin(&mut self) -> bool {
        std::mem::replace(&mut self.has_begun, true)
    }

    /// The endpoints that shall not be tried again.
    pub fn failed_endpoints(&self) -> &[EndpointId] {
        self.failed.get(..self.failed_count).unwrap_or_default()
    }

    /// Why there is no endpoint left.
    pub fn last_error(&self) -> ExchangeError {
        self.error.unwrap_or(ExchangeError::NoHealthyEndpoint)
    }

    /// Nobody was there; gives the error back when that is the end.
    pub fn not_there(&mut self, id: EndpointId, error: ExchangeError) -> Result<(), ExchangeError> {
        if let Some(place) = self.failed.get_mut(self.failed_count) {
            *place = id;
            self.failed_count += 1;
        }
        self.error = Some(error);
        if self.failed_count < self.connects_max { Ok(()) } else { Err(error) }
    }

    /// An attempt failed after its connection was there; gives the failure back when that is the end.
    pub fn go_on(&mut self, id: EndpointId, failed: Failed, sent: Sent) -> Result<(), Failed> {
        match Again::after(failed, sent) {
            Again::Anywhere if self.repeats_left > 0 => {
                self.repeats_left -= 1;
                // It begins with endpoints that have not failed in this attempt.
                self.failed_count = 0;
                self.error = None;
                Ok(())
            }
            Again::Elsewhere => self.not_there(id, failed.error).map_err(|_| failed),
            Again::Anywhere | Again::No => Err(failed),
        }
    }
}

/// Whether a request whose attempt failed may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Again {
    /// No: it may have been seen, or it would fail again.
    No,
    /// Not to this endpoint: as if no connection could be made.
    Elsewhere,
    /// To any endpoint: the connection had been idle, and its end says nothing about the endpoint.
    Anywhere,
}

impl Again {
    /// Only after a connection that upstream ended. When none of the request's bytes was taken, any request may go again.
    /// Else only over a connection that was idle before, since there the upstream may have closed it before it saw the
    /// request, and only when a repeat is harmless: an idempotent request that is still whole, of whose response no byte
    /// came (RFC 9110 §9.2.2). A new connection that ends after it took bytes may well have ended because of them.
    fn after(failed: Failed, sent: Sent) -> Again {
        let closed = matches!(failed.error, ExchangeError::UpstreamClosed | ExchangeError::UpstreamReset);
        match failed.phase {
            // It is there, and has more to do than it can (RFC 9113 §8.7).
            Phase::NothingSent if failed.error == ExchangeError::UpstreamRefused => Again::Elsewhere,
            Phase::NothingSent if closed && sent.was_idle => Again::Anywhere,
            Phase::NothingSent if closed => Again::Elsewhere,
            Phase::RequestSent if closed && sent.was_idle && sent.can_repeat => Again::Anywhere,
            Phase::NothingSent | Phase::RequestSent | Phase::ResponseStarted => Again::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExchangeError::{ResponseMalformed, UpstreamClosed, UpstreamReset, UpstreamTimeout};
    use Phase::{NothingSent, RequestSent, ResponseStarted};

    #[test]
    fn what_may_have_run_is_sent_again_only_when_that_does_no_harm() {
        let sent = |was_idle, can_repeat| Sent { was_idle, can_repeat };
        for (phase, error, sent, expected) in [
            (NothingSent, UpstreamClosed, sent(true, false), Again::Anywhere),
            (NothingSent, UpstreamReset, sent(false, false), Again::Elsewhere),
            (NothingSent, UpstreamTimeout, sent(true, true), Again::No),
            (RequestSent, UpstreamClosed, sent(true, true), Again::Anywhere),
            (RequestSent, UpstreamReset, sent(true, true), Again::Anywhere),
            (RequestSent, UpstreamClosed, sent(true, false), Again::No),
            (RequestSent, UpstreamReset, sent(false, true), Again::No),
            (RequestSent, UpstreamTimeout, sent(true, true), Again::No),
            (RequestSent, ResponseMalformed, sent(true, true), Again::No),
            (ResponseStarted, UpstreamClosed, sent(true, true), Again::No),
        ] {
            assert_eq!(Again::after(Failed { error, phase }, sent), expected, "{phase:?} {error:?} {sent:?}");
        }
    }

    #[test]
    fn endpoints_where_nobody_is_are_left_out_up_to_a_bound() {
        let mut attempts = Attempts::new(1);
        assert_eq!(attempts.last_error(), ExchangeError::NoHealthyEndpoint);
        assert_eq!((attempts.begin(), attempts.begin()), (false, true));
        let error = ExchangeError::ConnectFailed;
        assert_eq!(attempts.not_there(EndpointId(7), error), Ok(()));
        assert_eq!((attempts.failed_endpoints(), attempts.last_error()), (&[EndpointId(7)][..], error));
        assert_eq!(attempts.not_there(EndpointId(8), error), Err(error));
        let most = usize::from(u8::MAX);
        let mut attempts = Attempts::new(u8::MAX);
        let tried = (0..most).take_while(|_| attempts.not_there(EndpointId(1), error).is_ok()).count();
        assert_eq!(tried + 1, limits::CONNECT_ATTEMPTS_MAX);
    }

    #[test]
    fn dead_idle_connections_are_used_up_and_do_not_count_as_endpoints_where_nobody_is() {
        let mut attempts = Attempts::new(2);
        attempts.not_there(EndpointId(1), ExchangeError::ConnectFailed).unwrap();
        let failed = Failed { error: UpstreamClosed, phase: NothingSent };
        let sent = Sent { was_idle: true, can_repeat: false };
        let repeats =
            (0..2 * REPEATS_MAX).take_while(|_| attempts.go_on(EndpointId(2), failed, sent).is_ok());
        assert_eq!(repeats.count(), REPEATS_MAX);
        assert!(attempts.failed_endpoints().is_empty());
    }
}
