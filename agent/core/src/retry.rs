//! The pace of a call that is made until it succeeds.

use jiff::SignedDuration;

use crate::moment::Moment;

const FIRST: SignedDuration = SignedDuration::from_millis(100);
const LONGEST: SignedDuration = SignedDuration::from_secs(2);

/// At most one call under way, failed ones repeated with back-off.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Retry {
    attempts: u32,
    in_flight: bool,
    failures: u32,
    /// On the steady clock.
    not_before: Option<SignedDuration>,
}

impl Retry {
    /// Starts a call if none is under way and the pause is over; returns its number.
    pub(crate) fn start(&mut self, now: Moment) -> Option<u32> {
        if self.in_flight || self.not_before.is_some_and(|at| now.steady < at) {
            return None;
        }
        self.in_flight = true;
        self.attempts = self.attempts.saturating_add(1);
        Some(self.attempts)
    }

    /// The call with this number failed.
    pub(crate) fn fail(&mut self, attempt: u32, now: Moment) {
        if attempt == self.attempts {
            let factor = 1_i32 << self.failures.min(8);
            let pause = FIRST.saturating_mul(factor).min(LONGEST);
            self.failures = self.failures.saturating_add(1);
            self.in_flight = false;
            self.not_before = Some(now.steady.saturating_add(pause));
        }
    }

    /// The call with this number succeeded; the next may be made after `pause`.
    pub(crate) fn succeed(&mut self, attempt: u32, pause: SignedDuration, now: Moment) {
        if attempt == self.attempts {
            self.failures = 0;
            self.in_flight = false;
            self.not_before = Some(now.steady.saturating_add(pause));
        }
    }

    /// Nothing is pending any more: the next call starts at once, late answers don't count.
    pub(crate) fn reset(&mut self) {
        *self = Self { attempts: self.attempts.saturating_add(1), ..Self::default() };
    }
}
