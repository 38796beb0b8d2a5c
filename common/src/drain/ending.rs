//! A deletion under way: since when, until when, and how it can be made to end sooner.

use jiff::{SignedDuration, Timestamp};

use super::rules::{after, before, grace, seconds_left};
use crate::cluster::Pod;

/// A pod that should have been gone for so long has lost its kubelet; nothing is gained by waiting.
const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// What a request may take to arrive, and the API server's clock may be ahead.
const ARRIVES_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// A pod's deletion as the API server keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ending {
    /// When the pod was told to end.
    since: Timestamp,
    /// What it was given, seconds.
    period: i64,
}

impl Ending {
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let end = pod.metadata.deletion_timestamp?;
        // Without one, as with 0, a second deletion would drop the object at once.
        let period = pod.metadata.deletion_grace_period_seconds?;
        Some(Self { since: before(end, SignedDuration::from_secs(period)), period })
    }

    /// The period to ask for now, if any, so that the pod ends by the deadline, and hardly before.
    ///
    /// Kubernetes lets a period only shrink. The kubelet counts the new one from when it hears of it,
    /// so what is left is the most that keeps the deadline. The API server counts the same from when the
    /// pod was first told to end; since 1.33 it makes 1 s of what would be over by now. Then a second is
    /// all that can be had, and is asked for when no more is left: the pod has had its SIGTERM.
    pub(super) fn period_until(&self, deadline: Timestamp, now: Timestamp) -> Option<u32> {
        let left = seconds_left(deadline, now);
        let counted = after(self.since, SignedDuration::from_secs(left.into()));
        let is_kept = counted >= after(now, ARRIVES_WITHIN);
        (i64::from(left) < self.period && (is_kept || left <= 1)).then_some(left)
    }
}

/// Whether a deletion should have ended long ago; `deadline` is what its period may have been shortened
/// to fit. Then its kubelet may give it all the time until then, although the end that its object shows
/// is that of the same period from when it was first told to end.
pub fn is_stuck(pod: &Pod, deadline: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(end) = pod.metadata.deletion_timestamp else { return false };
    let unshortened = Ending::of(pod).map(|ending| after(ending.since, grace(pod)));
    let granted = unshortened.zip(deadline).map(|(own, deadline)| own.min(deadline));
    now >= after(granted.map_or(end, |granted| granted.max(end)), STUCK_AFTER)
}
