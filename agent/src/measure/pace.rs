//! How often others are asked for what they measure.

use std::time::Duration;

use drover_kubernetes::part_of;
use tokio::sync::watch;
use tokio::time::sleep;

const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Single failures are everyday life; so many in a row are told.
pub(super) const LASTING: u32 = 2;

/// The interval, doubled by lasting failures, with jitter so that nodes that failed together part.
pub(super) fn pause(interval: Duration, failures: u32) -> Duration {
    let full = interval.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE.max(interval));
    part_of(full).max(interval)
}

/// Pauses, and takes back what was told once it is not to be held true any more.
pub(super) async fn rest<T>(told: &watch::Sender<Option<T>>, pause: Duration, holds: Duration) {
    if told.borrow().is_some() && holds < pause {
        sleep(holds).await;
        told.send_replace(None);
        sleep(pause.saturating_sub(holds)).await;
    } else {
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_asked_ever_more_rarely() {
        let interval = Duration::from_secs(15);
        assert_eq!(pause(interval, 0), interval);
        assert!((15..=30).contains(&pause(interval, 1).as_secs()));
        assert!((60..=120).contains(&pause(interval, 3).as_secs()));
        assert!((150..=300).contains(&pause(interval, u32::MAX).as_secs()));
    }

    #[tokio::test]
    async fn what_was_told_is_taken_back_in_time() {
        let (sender, mut told) = watch::channel(Some(1));
        let [short, long] = [1, 200].map(Duration::from_millis);
        rest(&sender, short, long).await;
        assert_eq!(*told.borrow(), Some(1));
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = rest(&sender, long * 600, long) => panic!("the pause is longer"),
            taken = told.wait_for(Option::is_none) => assert!(taken.is_ok()),
        }
        assert!(begun.elapsed() >= long, "it held until then");
    }
}
