//! Monotonic time as a number that the caller gives.

use core::time::Duration;

/// A point of monotonic time: nanoseconds since an origin that the caller chose. Never wall-clock time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// A point that is never reached: the deadline of something without one.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// The point `wait` later; saturates at [`Tick::NEVER`].
    pub fn after(self, wait: Duration) -> Tick {
        Tick(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to here; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
