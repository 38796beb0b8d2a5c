//! The highest memory of each of the last days.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Memory counts with one peak in so long.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// So many windows count, as for the Vertical Pod Autoscaler. A decaying histogram would not do: its highest
/// bucket is told until nothing is left of it, which takes weeks, or less if a checkpoint rounds it away.
const WINDOWS: u8 = 8;
/// An OOM kill counts as this part more than the peak, and as at least so many bytes more: what was
/// asked for and not given.
const KILL_PART: u64 = 5;
const KILL_BYTES: u64 = 100 * 1024 * 1024;

/// Of the last days, the oldest first. Kept on disk as it is, so that a restart changes no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Peaks(Vec<Peak>);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Peak {
    /// Of the window's first sample.
    since: Timestamp,
    /// Measured.
    bytes: u64,
    /// What kills say was needed; kept apart, so that the next kill does not count from there.
    needed: u64,
}

impl Peak {
    /// A clock may have been set.
    fn is_within(&self, now: Timestamp, windows: u8) -> bool {
        let most = WINDOW.saturating_mul(windows.into());
        now.duration_since(self.since).unsigned_abs() < most.unsigned_abs()
    }
}

impl Peaks {
    /// Takes in a working set.
    pub(super) fn add(&mut self, bytes: u64, now: Timestamp) {
        self.update(now, |peak| peak.bytes = peak.bytes.max(bytes));
    }

    /// Takes in that memory was refused.
    pub(super) fn add_kill(&mut self, now: Timestamp) {
        let bytes = self.0.last().map_or(0, |peak| peak.bytes);
        let needed = bytes.saturating_add((bytes / KILL_PART).max(KILL_BYTES));
        self.update(now, |peak| peak.needed = peak.needed.max(needed));
    }

    /// The highest of the last days; `None` where nothing is known of them.
    pub(super) fn highest(&self, now: Timestamp) -> Option<u64> {
        let recent = self.0.iter().filter(|peak| peak.is_within(now, WINDOWS));
        recent.map(|peak| peak.bytes.max(peak.needed)).max()
    }

    /// Changes the window under way, or begins the next.
    fn update(&mut self, now: Timestamp, change: impl FnOnce(&mut Peak)) {
        if let Some(peak) = self.0.last_mut().filter(|peak| peak.is_within(now, 1)) {
            return change(peak);
        }
        self.0.retain(|peak| peak.is_within(now, WINDOWS));
        // More than that begin only where the clock is set.
        let excess = self.0.len().saturating_add(1).saturating_sub(usize::from(WINDOWS));
        self.0.drain(..excess);
        let mut peak = Peak { since: now, bytes: 0, needed: 0 };
        change(&mut peak);
        self.0.reserve_exact(1);
        self.0.push(peak);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap()
    }

    fn day(day: i64) -> Timestamp {
        at(day * 24 * 60)
    }

    #[test]
    fn one_high_day_is_told_for_eight_days_and_not_longer() {
        let mut peaks = Peaks::default();
        assert_eq!(peaks.highest(day(0)), None);
        for hour in 0..24 * 60 {
            let bytes = if hour == 2 * 24 + 3 { 700 } else { 200 + u64::from(hour % 24 == 9) };
            peaks.add(bytes * MEBIBYTE, at(i64::from(hour) * 60));
            let expected = match hour {
                0..=8 => 200,
                // Windows begin with the first sample, and the third was the high one.
                51..240 => 700,
                _ => 201,
            };
            assert_eq!(
                peaks.highest(at(i64::from(hour) * 60)),
                Some(expected * MEBIBYTE),
                "{hour}"
            );
        }
        assert_eq!(peaks.0.len(), 8);
        assert_eq!(peaks.highest(day(59 + 8)), None, "nothing was measured since");
    }

    #[test]
    fn kills_tell_what_was_needed_and_do_not_add_up() {
        let mut peaks = Peaks::default();
        peaks.add_kill(day(0));
        assert_eq!(peaks.highest(day(0)), Some(KILL_BYTES), "of nothing measured");
        peaks.add(200 * MEBIBYTE, day(0));
        for minute in 0..2_000 {
            peaks.add_kill(at(minute));
        }
        assert_eq!(peaks.highest(at(2_000)), Some(300 * MEBIBYTE));
        peaks.add(u64::MAX, at(2_001));
        peaks.add_kill(at(2_002));
        assert_eq!(peaks.highest(at(2_002)), Some(u64::MAX));
    }

    #[test]
    fn a_clock_that_was_set_is_survived() {
        let mut peaks = Peaks::default();
        for number in 0..100 {
            // Years ahead, and back.
            peaks.add(700, day(number % 2 * 4_000 + number));
            assert!(peaks.0.len() <= 8);
        }
        peaks.add(200, day(200));
        assert_eq!(peaks.highest(day(200)), Some(200));
    }

    proptest! {
        /// The highest of all samples that are in the last eight windows, before and after a restart.
        #[test]
        fn the_highest_of_the_last_windows_outlives_restarts(
            samples in prop::collection::vec((1_i64..3_000, 1_u64..1_000, any::<bool>()), 1..80),
        ) {
            let mut peaks = Peaks::default();
            let mut windows: Vec<(i64, u64)> = Vec::new();
            let mut minute = 0;
            for (pause, bytes, restarts) in samples {
                minute += pause;
                match windows.last_mut().filter(|(since, _)| minute - *since < 24 * 60) {
                    Some((_, highest)) => *highest = bytes.max(*highest),
                    None => windows.push((minute, bytes)),
                }
                peaks.add(bytes, at(minute));
                if restarts {
                    let text = serde_json::to_string(&peaks).unwrap();
                    let restored: Peaks = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(&restored, &peaks);
                    peaks = restored;
                }
                let recent = windows.iter().filter(|(since, _)| minute - since < 8 * 24 * 60);
                prop_assert_eq!(peaks.highest(at(minute)), recent.map(|(_, bytes)| *bytes).max());
            }
        }
    }
}
