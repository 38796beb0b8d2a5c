//! How often others are asked for what they measure.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::disk::random;

const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Single failures are everyday life; so many in a row are told.
pub(super) const LASTING: u32 = 2;

/// The interval, doubled by lasting failures, with jitter so that nodes that failed together part.
pub(super) fn pause(interval: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let full = interval.saturating_mul(1 << doublings).min(LONGEST_PAUSE.max(interval));
    match failures {
        0 => full,
        _ => {
            let permille = u32::try_from(random() % 500).unwrap_or(0).saturating_add(1_000);
            full.saturating_mul(permille) / 1000
        }
    }
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
        assert!((15..=23).contains(&pause(interval, 1).as_secs()));
        assert!((60..=90).contains(&pause(interval, 3).as_secs()));
        assert!((300..=450).contains(&pause(interval, u32::MAX).as_secs()));
    }

    #[tokio::test]
    async fn what_was_told_is_taken_back_in_time() {
        let (sender, told) = watch::channel(Some(1));
        let [short, long] = [1, 1000].map(Duration::from_millis);
        rest(&sender, short, long).await;
        assert_eq!(*told.borrow(), Some(1));
        let mut changed = told.clone();
        tokio::select! {
            () = rest(&sender, long * 60, short) => panic!("the pause is longer"),
            taken = changed.wait_for(Option::is_none) => assert!(taken.is_ok()),
        }
    }
}
