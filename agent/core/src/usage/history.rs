//! What pods used over days: a decaying histogram of CPU, and one of memory's daily peaks.

use std::collections::BTreeMap;

use drover_common::protocol::UsageDigest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::histogram::{Buckets, Checkpoint, Histogram};

/// Memory counts with one peak in so long.
const MEMORY_WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// A pod that was not measured for so long is forgotten.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// The Vertical Pod Autoscaler weighs a sample by the pod's request, which hardly ever changes in a
/// pod's life: within one pod it makes no difference.
const WEIGHT: f64 = 1.0;
/// An OOM kill counts as this much more than the peak, and as at least so many bytes more: what was
/// asked for and not given.
const OOM_FACTOR: f64 = 1.2;
const OOM_BYTES: f64 = 100.0 * 1024.0 * 1024.0;

/// The history of the pods of one node.
#[derive(Clone, Debug, Default)]
pub struct History {
    pods: BTreeMap<String, PodHistory>,
}

#[derive(Clone, Debug)]
struct PodHistory {
    cpu: Histogram,
    memory: Histogram,
    peak: Option<Peak>,
    seen_at: Timestamp,
}

/// The highest memory of the window under way; it's in the histogram already.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Peak {
    since: Timestamp,
    at: Timestamp,
    bytes: f64,
}

/// What is kept of a [`History`] over restarts, by pod UID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHistory {
    pods: BTreeMap<String, SavedPod>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedPod {
    cpu: Checkpoint,
    memory: Checkpoint,
    peak: Option<Peak>,
    seen_at: Timestamp,
}

impl History {
    /// Takes in a digest, and writes into it what it adds up to: the 90th percentile of CPU and the
    /// highest memory of the last days.
    pub fn take(&mut self, digest: &mut UsageDigest, now: Timestamp) {
        for pod in &mut digest.pods {
            let history = self.pods.entry(pod.uid.clone()).or_insert_with(|| PodHistory::new(now));
            history.seen_at = now;
            history.cpu.add(pod.cpu_milli_mean as f64 / 1000.0, WEIGHT, now);
            history.add_memory(pod.memory_working_set as f64, now);
            if pod.oom_kills > 0 {
                let peak = history.peak.map_or(0.0, |peak| peak.bytes);
                history.add_memory((peak * OOM_FACTOR).max(peak + OOM_BYTES), now);
            }
            pod.cpu_milli_p90 = history.cpu.percentile(0.9).map(|cores| (cores * 1000.0) as u64);
            pod.memory_peak = history.memory.percentile(1.0).map(|bytes| bytes as u64);
        }
        self.pods.retain(|_, history| now.duration_since(history.seen_at) < FORGET_AFTER);
    }

    /// What to keep on disk.
    pub fn save(&self) -> SavedHistory {
        let saved = |history: &PodHistory| SavedPod {
            cpu: history.cpu.checkpoint(),
            memory: history.memory.checkpoint(),
            peak: history.peak,
            seen_at: history.seen_at,
        };
        let pods = self.pods.iter().map(|(uid, history)| (uid.clone(), saved(history)));
        SavedHistory { pods: pods.collect() }
    }

    /// What was kept; pods whose part makes no sense begin anew.
    pub fn restore(kept: &SavedHistory) -> Self {
        let pods = kept.pods.iter().filter_map(|(uid, pod)| {
            let history = PodHistory {
                cpu: Histogram::restore(&pod.cpu)?,
                memory: Histogram::restore(&pod.memory)?,
                peak: pod.peak,
                seen_at: pod.seen_at,
            };
            Some((uid.clone(), history))
        });
        Self { pods: pods.collect() }
    }
}

impl PodHistory {
    fn new(now: Timestamp) -> Self {
        let (cpu, memory) = (Histogram::new(Buckets::Cpu), Histogram::new(Buckets::Memory));
        Self { cpu, memory, peak: None, seen_at: now }
    }

    /// A higher value takes the place of the window's peak.
    fn add_memory(&mut self, bytes: f64, now: Timestamp) {
        let current = self.peak.filter(|peak| now.duration_since(peak.since) < MEMORY_WINDOW);
        let since = current.map_or(now, |peak| peak.since);
        if let Some(peak) = current {
            if bytes <= peak.bytes {
                return;
            }
            self.memory.subtract(peak.bytes, WEIGHT, peak.at);
        }
        self.memory.add(bytes, WEIGHT, now);
        self.peak = Some(Peak { since, at: now, bytes });
    }
}

#[cfg(test)]
mod tests {
    use drover_common::protocol::PodUsage;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hours * 3_600).unwrap()
    }

    fn take(history: &mut History, milli: u64, mebibytes: u64, ooms: u64, hour: i64) -> PodUsage {
        let pod = PodUsage {
            uid: "a".into(),
            cpu_milli_mean: milli,
            memory_working_set: mebibytes << 20,
            oom_kills: ooms,
            ..PodUsage::default()
        };
        let mut digest = UsageDigest { pods: vec![pod], ..UsageDigest::default() };
        history.take(&mut digest, at(hour));
        digest.pods.remove(0)
    }

    /// A bucket is 5 % wide.
    fn near(found: Option<u64>, expected: u64) -> bool {
        found.is_some_and(|found| found >= expected && found <= expected * 107 / 100 + 10)
    }

    #[test]
    fn percentiles_and_peaks_outlive_quiet_hours_and_restarts() {
        let mut history = History::default();
        for hour in 0..20 {
            take(&mut history, if hour < 4 { 900 } else { 100 }, 300, 0, hour);
        }
        take(&mut history, 100, 700, 0, 20);
        let pod = take(&mut history, 100, 200, 0, 21);
        assert!(near(pod.cpu_milli_p90, 900), "{pod:?}");
        assert!(near(pod.memory_peak, 700 << 20), "{pod:?}");

        let text = serde_json::to_string(&history.save()).unwrap();
        let mut restored = History::restore(&serde_json::from_str(&text).unwrap());
        let again = take(&mut restored, 100, 200, 0, 22);
        assert_eq!(again.memory_peak, pod.memory_peak);
        assert!(near(again.cpu_milli_p90, 900), "{again:?}");
    }

    #[test]
    fn a_kill_counts_as_what_was_not_given() {
        let mut history = History::default();
        take(&mut history, 10, 200, 0, 0);
        let pod = take(&mut history, 10, 100, 1, 0);
        assert!(near(pod.memory_peak, 300 << 20), "{pod:?}");
    }

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let mut history = History::default();
        take(&mut history, 10, 200, 0, 0);
        history.take(&mut UsageDigest::default(), at(2));
        assert_eq!(history.save(), SavedHistory::default());
    }
}
