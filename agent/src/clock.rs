//! A clock that does not jump while something is under way.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// Wall time, carried on by the monotonic clock: a step of the wall clock shows only after
/// [`Clock::set`], which is called while nothing counts down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Timestamp,
    read_at: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { wall: Timestamp::now(), read_at: Instant::now() }
    }

    /// Takes over the wall clock's time.
    pub(crate) fn set(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed =
            SignedDuration::try_from(self.read_at.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}
