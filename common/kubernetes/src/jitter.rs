//! Pauses that differ, so that many nodes that failed together don't come back in step.

use std::time::Duration;

/// Between a half of a pause and the whole, another part each time.
pub fn part_of(pause: Duration) -> Duration {
    pause.saturating_mul(fastrand::u32(500..1_000)) / 1000
}

/// So much, and any part of `more`, short of all.
pub(crate) fn spread(least: Duration, more: Duration) -> Duration {
    let most = u64::try_from(more.as_millis()).unwrap_or(u64::MAX).max(1);
    least.saturating_add(Duration::from_millis(fastrand::u64(..most)))
}
