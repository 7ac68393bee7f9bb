//! Flow control: how many bytes of DATA may be on their way (RFC 9113 §5.2, §6.9).

use super::error::ConnectionError;

/// The size of a window that nobody changed, in bytes (RFC 9113 §6.9.2).
pub const WINDOW_BYTES_INITIAL: u32 = 65_535;

/// The largest window (RFC 9113 §6.9.1).
pub const WINDOW_BYTES_MAX: u32 = u32::MAX >> 1;

/// How many bytes we may send. Below zero after the peer has lowered it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SendWindow(i32);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> SendWindow {
        SendWindow(i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// Bytes that may be sent now.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Counts bytes that are sent; at most [`SendWindow::room`].
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room(), "more sent than the window allows");
        self.0 -= i32::try_from(bytes).unwrap_or(i32::MAX);
    }

    /// The peer takes more.
    pub(super) fn grow(&mut self, bytes: u32) -> Result<(), ConnectionError> {
        self.shift(i64::from(bytes))
    }

    /// The peer has changed the initial size by so much.
    pub(super) fn shift(&mut self, bytes: i64) -> Result<(), ConnectionError> {
        let moved = i64::from(self.0) + bytes;
        self.0 = i32::try_from(moved).map_err(|_| ConnectionError::FlowControl)?;
        Ok(())
    }
}

/// How many bytes the peer may send. What was consumed is granted again in large steps, since each costs a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecvWindow {
    /// What the peer may still send.
    left: u32,
    /// What came and was not consumed.
    held: u32,
}

impl RecvWindow {
    /// A window that the peer takes to be this large.
    pub(super) fn new(bytes: u32) -> RecvWindow {
        RecvWindow { left: bytes, held: 0 }
    }

    /// Counts bytes that came.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), ConnectionError> {
        self.left = self.left.checked_sub(bytes).ok_or(ConnectionError::FlowControl)?;
        self.held += bytes;
        Ok(())
    }

    /// Counts bytes that were consumed. Gives by how much the window is opened again, if it is time: when less than half of
    /// `target` is left that the peer could send.
    pub(super) fn consume(&mut self, bytes: u32, target: u32) -> Option<u32> {
        self.held = self.held.saturating_sub(bytes);
        let known = self.left.saturating_add(self.held);
        let more = target.saturating_sub(known);
        if more == 0 || more < target / 2 {
            return None;
        }
        self.left += more;
        Some(more)
    }

    /// What the peer may still send, and what came and was not consumed.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (u32, u32) {
        (self.left, self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_fall_below_zero_and_not_above_its_bound() {
        let mut window = SendWindow::new(10);
        window.take(4);
        assert_eq!(window.room(), 6);
        assert_eq!(window.shift(-8), Ok(()));
        assert_eq!(window.room(), 0);
        assert_eq!(window.grow(3), Ok(()));
        assert_eq!(window.room(), 1);
        assert_eq!(window.grow(WINDOW_BYTES_MAX - 1), Ok(()));
        assert_eq!(window.room(), WINDOW_BYTES_MAX as usize);
        assert_eq!(window.grow(1), Err(ConnectionError::FlowControl));
    }

    #[test]
    fn a_receive_window_opens_in_steps_of_half_and_holds_the_peer_to_it() {
        let mut window = RecvWindow::new(100);
        assert_eq!(window.receive(100), Ok(()));
        assert_eq!(window.receive(1), Err(ConnectionError::FlowControl));
        assert_eq!(window.consume(49, 100), None);
        assert_eq!(window.consume(1, 100), Some(50));
        assert_eq!(window.receive(51), Err(ConnectionError::FlowControl));
        assert_eq!(window.receive(50), Ok(()));
        // Consumed at once, and now twice as much shall be on its way.
        assert_eq!(window.consume(100, 200), Some(200));
        assert_eq!(window.consume(0, 200), None);
    }

    #[test]
    fn what_is_held_is_not_granted_again() {
        let mut window = RecvWindow::new(100);
        window.receive(100).unwrap();
        assert_eq!(window.consume(0, 100), None, "nobody took anything");
        assert_eq!(window.consume(60, 100), Some(60));
        assert_eq!(window.receive(61), Err(ConnectionError::FlowControl));
    }
}
