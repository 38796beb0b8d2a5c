//! How soon pods are planned anew whose claims were lost: at once, unless that happens again and again.

use jiff::{SignedDuration, Timestamp};

use super::object::after;

/// The wait after a second loss; it doubles with every further one.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(1);
/// Losses so far apart have nothing to do with each other.
const CALM_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Losses in a row that were answered at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Haste {
    times: u32,
    last: Option<Timestamp>,
}

impl Haste {
    /// Whether a loss is answered now. The longest wait is that of all pods without a place.
    pub(super) fn allows(&self, longest: SignedDuration, now: Timestamp) -> bool {
        let Some(last) = self.last else { return true };
        let doubled = 1_i32 << self.times.saturating_sub(1).min(10);
        after(last, FIRST_WAIT.saturating_mul(doubled).min(longest)) <= now
    }

    /// A loss is being answered.
    pub(super) fn note(&mut self, now: Timestamp) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) >= CALM_AFTER);
        self.times = if calm { 1 } else { self.times.saturating_add(1) };
        self.last = Some(now);
    }
}
