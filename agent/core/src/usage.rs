//! Measured use: parsers of what the kernel prints, and the fold of samples into digests.

mod kernel;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use drover_common::protocol::{PodUsage, UsageDigest};
use jiff::Timestamp;

pub use kernel::{
    UnreadableFile, available_memory, cpu_usage, inactive_file, node_cpu_usage, number,
    pod_uid_of_directory, stalled,
};

/// What was read at one moment. CPU and stall times count up from an arbitrary start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU time of the node, microseconds.
    pub cpu_usec: u64,
    /// Working set of the node, bytes.
    pub memory_working_set: u64,
    /// Time in which some task stalled on CPU, memory and I/O, microseconds. `None`: no PSI.
    pub stalled_usec: Option<[u64; 3]>,
    /// Pods by UID.
    pub pods: BTreeMap<String, PodSample>,
}

/// What was read of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodSample {
    /// CPU time, microseconds.
    pub cpu_usec: u64,
    /// Working set, bytes.
    pub memory_working_set: u64,
}

/// Samples since the last digest.
#[derive(Clone, Debug, Default)]
pub struct UsageWindow {
    first: Option<(Timestamp, Sample)>,
    last: Option<(Timestamp, Sample)>,
    cpu_milli_max: u64,
}

impl UsageWindow {
    /// Adds a sample. Samples that are not later than the last are dropped.
    pub fn add(&mut self, at: Timestamp, sample: Sample) {
        match &self.last {
            None => self.first = Some((at, sample.clone())),
            Some((before, previous)) => {
                let usec = microseconds(*before, at);
                if usec == 0 {
                    return;
                }
                let milli = milli_cores(previous.cpu_usec, sample.cpu_usec, usec);
                self.cpu_milli_max = self.cpu_milli_max.max(milli);
            }
        }
        self.last = Some((at, sample));
    }

    /// The digest of all samples since the last one; `None` if there were fewer than two, because
    /// one sample says nothing about CPU. The last sample is the first of the next window.
    pub fn digest(&mut self) -> Option<UsageDigest> {
        let (from, first) = self.first.as_ref()?;
        let (until, last) = self.last.as_ref()?;
        let usec = microseconds(*from, *until);
        if usec == 0 {
            return None;
        }
        let pressure_permille = match (first.stalled_usec, last.stalled_usec) {
            (Some(before), Some(after)) => {
                let permille = |index: usize| {
                    let before = before.get(index).copied().unwrap_or_default();
                    let after = after.get(index).copied().unwrap_or_default();
                    let share = ratio(after.saturating_sub(before), 1000, usec).min(1000);
                    u32::try_from(share).unwrap_or(1000)
                };
                Some([permille(0), permille(1), permille(2)])
            }
            _ => None,
        };
        let digest = UsageDigest {
            interval_seconds: u32::try_from(usec.div_ceil(1_000_000)).unwrap_or(u32::MAX),
            cpu_milli_mean: milli_cores(first.cpu_usec, last.cpu_usec, usec),
            cpu_milli_max: self.cpu_milli_max,
            memory_working_set: last.memory_working_set,
            pressure_permille,
            pods: pods(first, last, usec),
        };
        self.first.clone_from(&self.last);
        self.cpu_milli_max = 0;
        Some(digest)
    }
}

/// Pods that were there all the time: the mean of one that came later isn't known yet.
fn pods(first: &Sample, last: &Sample, usec: u64) -> Vec<PodUsage> {
    let of_pod = |(uid, after): (&String, &PodSample)| {
        let before = first.pods.get(uid)?;
        Some(PodUsage {
            uid: uid.clone(),
            cpu_milli_mean: milli_cores(before.cpu_usec, after.cpu_usec, usec),
            memory_working_set: after.memory_working_set,
        })
    };
    last.pods.iter().filter_map(of_pod).collect()
}

fn microseconds(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.duration_since(from).as_micros()).unwrap_or(0)
}

/// Milli-cores used between two readings. A counter that went back (a restarted group) counts as 0.
fn milli_cores(before: u64, after: u64, usec: u64) -> u64 {
    ratio(after.saturating_sub(before), 1000, usec)
}

fn ratio(part: u64, scale: u64, whole: u64) -> u64 {
    let scaled = u128::from(part).saturating_mul(u128::from(scale));
    u64::try_from(scaled.checked_div(u128::from(whole)).unwrap_or(0)).unwrap_or(u64::MAX)
}
