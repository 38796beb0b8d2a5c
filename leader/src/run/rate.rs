//! A token bucket, so that a burst of decisions does not become a burst on the API server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many requests a second, and so many at once.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Time one request takes from the allowance.
    interval: Duration,
    /// How much allowance can be saved up.
    burst: Duration,
    /// When the allowance would be used up if nothing came any more.
    spent_until: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let burst = interval.saturating_mul(burst.max(1).saturating_sub(1));
        Self { interval, burst, spent_until: Mutex::new(Instant::now()) }
    }

    /// Waits for this request's turn.
    pub(super) async fn turn(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn reserve(&self, now: Instant) -> Duration {
        let mut spent_until = self.spent_until.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (*spent_until).max(now);
        *spent_until = before + self.interval;
        before.duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_passes_and_the_rest_is_spread() {
        let limit = RateLimit::new(100, 3);
        let now = Instant::now();
        let waits: Vec<_> = (0..5).map(|_| limit.reserve(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 10, 20]);
        let later = now + Duration::from_secs(60);
        assert_eq!(limit.reserve(later), Duration::ZERO);
    }
}
