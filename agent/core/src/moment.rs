//! Now, by both clocks.

use jiff::{SignedDuration, Timestamp};

/// A moment. The wall clock may be set, by an hour too; the steady one never is. So pauses and how
/// long something holds are measured on the steady one, and the wall clock only says how far off an
/// announced time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since some moment that is the same for the agent's whole life.
    pub steady: SignedDuration,
    /// The time of day.
    pub wall: Timestamp,
}

impl Moment {
    /// Whether so much has passed since an earlier reading of the steady clock.
    pub(crate) fn is_past(self, earlier: SignedDuration, pause: SignedDuration) -> bool {
        self.steady.saturating_sub(earlier) >= pause
    }
}

/// In a world whose clock is never set both are one.
impl From<Timestamp> for Moment {
    fn from(now: Timestamp) -> Self {
        Self { steady: now.duration_since(Timestamp::UNIX_EPOCH), wall: now }
    }
}
