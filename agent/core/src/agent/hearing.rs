//! Whether IMDS is heard. An agent that hears nothing of it knows of no notice, and looks like one that has none.

use jiff::{SignedDuration, Timestamp};

use super::{Agent, Fact};
use crate::moment::Moment;

/// Spot notices are asked for twice a second, and every few seconds where that fails.
pub(super) const BLIND_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// What was last heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hearing {
    /// When an answer on spot notices was understood last, or the agent began.
    heard_at: Option<Moment>,
    blind: bool,
}

impl Hearing {
    pub(super) fn hear(&mut self, now: Moment) {
        self.heard_at = Some(now);
    }

    /// Since when nothing is heard, if it is for long.
    pub(super) fn silent_since(&self) -> Option<Timestamp> {
        self.heard_at.filter(|_| self.blind).map(|at| at.wall)
    }
}

impl Agent {
    pub(super) fn watch_hearing(&mut self, now: Moment) {
        let heard_at = *self.hearing.heard_at.get_or_insert(now);
        let blind = now.is_past(heard_at.steady, BLIND_AFTER);
        if std::mem::replace(&mut self.hearing.blind, blind) != blind {
            self.tell(if blind { Fact::Blind { since: heard_at.wall } } else { Fact::Sees });
        }
    }
}
