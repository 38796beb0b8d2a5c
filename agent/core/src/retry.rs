//! The pace of a call that is made until it succeeds.

use jiff::SignedDuration;

use crate::digest::number_of;
use crate::moment::Moment;

const FIRST: SignedDuration = SignedDuration::from_millis(100);
const LONGEST: SignedDuration = SignedDuration::from_secs(2);

/// What is undone again and again is made again after so long at first.
const FIRST_AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// Sets the pauses of one agent apart from all others': nodes that failed in step would come back so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread(u64);

impl Spread {
    /// Of an agent, by what no other has.
    pub(crate) fn of(names: &[&str]) -> Self {
        Self(number_of(names))
    }

    /// Between half of a pause and all of it, another with each number.
    fn part_of(self, pause: SignedDuration, number: u32) -> SignedDuration {
        // Knuth's multiplier for generators of this size.
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(6_364_136_223_846_793_005) >> 33;
        let permille = i32::try_from(mixed % 501).unwrap_or(0).saturating_add(500);
        pause.saturating_mul(permille) / 1_000
    }
}

/// At most one call under way, failed ones repeated with back-off.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Retry {
    attempts: u32,
    in_flight: bool,
    failures: u32,
    /// Successes in a row that did not last, and when the last was, on the steady clock.
    repeats: u32,
    succeeded_at: Option<SignedDuration>,
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
    pub(crate) fn fail(&mut self, attempt: u32, spread: Spread, now: Moment) {
        if attempt == self.attempts {
            let factor = 1_i32 << self.failures.min(8);
            let pause = FIRST.saturating_mul(factor).min(LONGEST);
            let pause = spread.part_of(pause, attempt);
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

    /// The call with this number succeeded. Where others undo it, it's made again ever more rarely, until it has
    /// lasted for twice the longest pause.
    pub(crate) fn succeed_for_a_while(
        &mut self,
        attempt: u32,
        longest: SignedDuration,
        now: Moment,
    ) {
        if attempt != self.attempts {
            return;
        }
        let lasted = self.succeeded_at.is_none_or(|at| now.is_past(at, longest.saturating_mul(2)));
        self.repeats = if lasted { 0 } else { self.repeats.saturating_add(1) };
        self.succeeded_at = Some(now.steady);
        let factor = 1_i32 << self.repeats.min(16);
        self.succeed(attempt, FIRST_AGAIN.saturating_mul(factor).min(longest), now);
    }

    /// Nothing is pending any more: the next call starts at once, late answers don't count.
    pub(crate) fn reset(&mut self) {
        *self = Self { attempts: self.attempts.saturating_add(1), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::*;

    /// The pauses, in milliseconds, of a call that fails for ever.
    fn pauses(node: &str) -> Vec<i128> {
        let (mut retry, spread) = (Retry::default(), Spread::of(&[node, "boot"]));
        let pause = |number: i64| {
            let now = Moment::from(Timestamp::from_second(number * 10).unwrap());
            let attempt = retry.start(now).unwrap();
            retry.fail(attempt, spread, now);
            retry.not_before.unwrap().saturating_sub(now.steady).as_millis()
        };
        (1..=20).map(pause).collect()
    }

    #[test]
    fn two_hundred_nodes_do_not_come_back_in_step() {
        let all: Vec<_> = (0..200).map(|node| pauses(&format!("node-{node}"))).collect();
        for turn in 0..20 {
            let full = (100_i128 << turn.min(8)).min(2_000);
            let of_turn: BTreeSet<i128> = all.iter().map(|pauses| pauses[turn]).collect();
            assert!(of_turn.iter().all(|pause| (full / 2..=full).contains(pause)), "{of_turn:?}");
            assert!(of_turn.len() > 30, "turn {turn}: {of_turn:?}");
        }
        let last: BTreeSet<i128> = all[0][8..].iter().copied().collect();
        assert!(last.len() > 6, "each turn is another: {last:?}");
    }
}
