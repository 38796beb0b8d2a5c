//! Pods that do not go, told now and then while a drain lasts: without leaders nobody else would say why.

use drover_common::drain::DrainState;
use drover_common::protocol::DrainPhase;
use jiff::SignedDuration;

use super::{Agent, Fact};
use crate::moment::Moment;

/// Between two tellings at first, and at most: a drain may wait for weeks.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// So many pods are named each time.
const MOST_NAMED: usize = 10;

/// When pods that do not go are told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftTold {
    /// On the steady clock, the last time or the drain's begin.
    at: SignedDuration,
    /// Until the next.
    pause: SignedDuration,
}

impl Agent {
    pub(super) fn tell_left(&mut self, now: Moment) {
        let report = self.drain.as_ref().map(DrainState::report);
        let Some(report) = report.filter(|report| report.phase != DrainPhase::Drained) else {
            self.left_told = None;
            return;
        };
        let begun = LeftTold { at: now.steady, pause: FIRST_PAUSE };
        let told = *self.left_told.get_or_insert(begun);
        if !now.is_past(told.at, told.pause) {
            return;
        }
        let pause = told.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.left_told = Some(LeftTold { at: now.steady, pause });
        let mut pods = report.remaining;
        let unnamed = pods.len().saturating_sub(MOST_NAMED);
        pods.truncate(MOST_NAMED);
        if !pods.is_empty() {
            self.tell(Fact::PodsLeft { pods, unnamed });
        }
    }
}
