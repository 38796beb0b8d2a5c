//! How long a watch waits for what does not come.

use std::time::Duration;

use tokio::sync::watch as newest;
use tokio::time::Instant;

use crate::jitter::spread;

/// How long one page, or the headers of a watch, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first may take while what it tells is needed now. A dead connection that was kept for the next request
/// is found so. Each further one may take so much more, up to the same: the server may just be slow.
const URGENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A watch that is silent for so long is opened again: API servers send a bookmark each minute,
/// so that only a dead connection or a very quiet kind is silent, and reopening is cheap.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a watch lasts while what it tells is needed now, and how much more some last: many may be opened at once.
/// API servers send a bookmark two seconds before a watch's end, so that the next begins at what is newest; one that
/// still goes on after its end is dead.
const SHORT_WATCH: Duration = Duration::from_secs(8);
const SHORT_WATCH_SPREAD: Duration = Duration::from_secs(5);
/// The longest of them, in whole seconds.
const LONGEST_SHORT_WATCH: Duration = Duration::from_secs(12);
/// How much later than its end a watch ends that is alive.
const LATENESS: Duration = Duration::from_secs(3);
/// Within so long watches are opened again that were silent for long when they became urgent: on many nodes at once.
const REOPENED_WITHIN: Duration = Duration::from_secs(2);

/// How long a watch is to last that is opened while it's urgent, in whole seconds.
pub(super) fn short_watch() -> Duration {
    Duration::from_secs(spread(SHORT_WATCH, SHORT_WATCH_SPREAD).as_secs())
}

/// What comes of an answer, unless it comes too late. `tries` before it came too late already. That it becomes urgent
/// counts at once.
pub(super) async fn in_time<T>(
    mut urgent: newest::Receiver<bool>,
    tries: u32,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let since = Instant::now();
    let mut answer = std::pin::pin!(answer);
    loop {
        let patience = patience(*urgent.borrow_and_update(), tries);
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = tokio::time::sleep_until(since + patience) => return None,
            Ok(()) = urgent.changed() => {}
        }
    }
}

fn patience(urgent: bool, tries: u32) -> Duration {
    let hurried = URGENT_ANSWER_TIMEOUT.saturating_mul(tries.saturating_add(1));
    if urgent { hurried.min(ANSWER_TIMEOUT) } else { ANSWER_TIMEOUT }
}

/// Ends when a watch that `lasts` so long, and has been silent from now on, is to be opened again.
pub(super) async fn idle_for_long(urgent: &mut newest::Receiver<bool>, lasts: Duration) {
    let since = Instant::now();
    loop {
        let is_urgent = *urgent.borrow_and_update();
        let at = since + silence(is_urgent, lasts);
        let missed = is_urgent && at <= Instant::now();
        let at = if missed { Instant::now() + spread(Duration::ZERO, REOPENED_WITHIN) } else { at };
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            Ok(()) = urgent.changed() => {}
        }
    }
}

/// How long a watch that is alive may be silent. One that was opened before it became urgent has no end of its own
/// that is near: it gets the time of the longest that does.
fn silence(urgent: bool, lasts: Duration) -> Duration {
    let lasts = if urgent { lasts.min(LONGEST_SHORT_WATCH) } else { lasts };
    lasts.saturating_add(LATENESS).min(IDLE_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn watches_that_are_opened_at_once_do_not_end_at_once() {
        let all: BTreeSet<u64> = (0..500).map(|_| short_watch().as_secs()).collect();
        assert_eq!(all, (8..=12).collect());
    }

    #[test]
    fn each_try_has_more_time_up_to_what_there_is_without_haste() {
        let seconds = |urgent| [0, 1, 2, 9].map(|tries| patience(urgent, tries).as_secs());
        assert_eq!((seconds(true), seconds(false)), ([5, 10, 15, 30], [30; 4]));
    }

    #[test]
    fn a_watch_has_died_that_goes_on_after_its_end() {
        let seconds = |urgent, lasts| silence(urgent, Duration::from_secs(lasts)).as_secs();
        assert_eq!((seconds(false, 290), seconds(false, 9), seconds(true, 8)), (90, 12, 11));
        assert_eq!((seconds(true, 12), seconds(true, 290)), (15, 15));
    }
}
