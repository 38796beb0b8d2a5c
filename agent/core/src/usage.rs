//! Measured use: parsers of what the kernel, the kubelet and GPUs' exporter print, the fold of samples into digests, and histories.

mod container;
mod exposition;
mod gpu;
mod histogram;
mod history;
mod kernel;
mod kubelet;
mod network;
mod peaks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use container::ContainerFold;
use drover_common::protocol::{PodUsage, UsageDigest, UsageSource};
use jiff::Timestamp;

pub(crate) use container::names_in;
pub use container::{ContainerName, ContainerNames, ContainerSample};
pub use exposition::Lines;
pub use gpu::{GpuReading, GpuUse};
pub use histogram::{Checkpoint, HISTOGRAM_VERSION, Histogram};
pub use history::{HISTORY_VERSION, History, SavedHistory};
pub use kernel::{
    LimitPeriods, UnreadableFile, available_memory, container_of_directory, cpu_usage, disk_bytes,
    inactive_file, io_bytes, limit_periods, network_bytes, node_cpu_usage, number, oom_kills,
    pod_network_bytes, pod_uid_of_directory, processes, stalled,
};
pub use kubelet::{KubeletFold, KubeletReading, KubeletUse, PodNames};
pub use network::PodNetwork;

/// What was read at one moment. Counters count up from an arbitrary start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU time of the node, microseconds.
    pub cpu_usec: u64,
    /// What is looked at less often.
    pub rest: Option<NodeRest>,
    /// Pods.
    pub pods: Vec<PodSample>,
}

/// What is read of the node only now and then: it counts up, or changes slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeRest {
    /// Working set, bytes.
    pub memory_working_set: u64,
    /// Time in which some task stalled on CPU, memory and I/O, microseconds. `None`: no PSI.
    pub stalled_usec: Option<[u64; 3]>,
    /// Bytes received, sent, read from disks and written to them. `None`: unknown.
    pub traffic: Option<[u64; 4]>,
    /// Processes killed because memory ran out. `None`: not counted here.
    pub oom_kills: Option<u64>,
}

/// What was read of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSample {
    /// Its UID.
    pub uid: Arc<str>,
    /// CPU time, microseconds.
    pub cpu_usec: u64,
    /// Time some task stalled on CPU, microseconds. `None`: no PSI.
    pub stalled_usec: Option<u64>,
    /// What is looked at less often.
    pub rest: Option<PodRest>,
    /// Its containers whose names are known; looked at along with `rest`.
    pub containers: Vec<ContainerSample>,
}

/// What is read of a pod only now and then: it counts up, or changes slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodRest {
    /// What came of its own CPU limit, which it has where all its containers have one.
    pub limit: LimitPeriods,
    /// Working set, bytes.
    pub memory_working_set: u64,
    /// Time some task stalled on memory and I/O, microseconds. `None`: no PSI.
    pub stalled_usec: Option<[u64; 2]>,
    /// Processes killed because memory ran out.
    pub oom_kills: u64,
    /// Bytes read from disks and written to them. `None`: not counted here.
    pub disk_bytes: Option<[u64; 2]>,
    /// Its network. `None`: unknown, or the node's.
    pub network: Option<PodNetwork>,
}

/// Samples since the last digest.
#[derive(Clone, Debug, Default)]
pub struct UsageWindow {
    /// CPU time of the node, microseconds.
    first: Option<(Timestamp, u64)>,
    last: Option<(Timestamp, u64)>,
    rest: Option<RestFold>,
    cpu_milli_max: u64,
    /// Boxed: a map has room for more than it holds.
    pods: BTreeMap<Arc<str>, Box<PodFold>>,
}

/// The last reading before the window, or its first, and the last.
#[derive(Clone, Copy, Debug)]
struct RestFold {
    first: (Timestamp, NodeRest),
    last: (Timestamp, NodeRest),
}

#[derive(Clone, Debug)]
struct PodFold {
    first: (Timestamp, PodSample),
    last: (Timestamp, PodSample),
    milli_max: u64,
    stalled_max: Option<u32>,
    /// The one before and the last of those that were read.
    rest: (Option<PodRest>, Option<PodRest>),
    containers: ContainerFold,
}

impl UsageWindow {
    /// Adds a sample. Samples that are not later than the last are dropped.
    pub fn add(&mut self, at: Timestamp, sample: Sample) {
        let cpu_usec = sample.cpu_usec;
        match self.last {
            None => self.first = Some((at, cpu_usec)),
            Some((before, previous)) => {
                let usec = microseconds(before, at);
                if usec == 0 {
                    return;
                }
                let milli = milli_cores(previous, cpu_usec, usec);
                self.cpu_milli_max = self.cpu_milli_max.max(milli);
            }
        }
        self.last = Some((at, cpu_usec));
        if let Some(rest) = sample.rest {
            let last = (at, rest);
            self.rest = Some(RestFold { first: self.rest.map_or(last, |fold| fold.first), last });
        }
        for pod in sample.pods {
            self.add_pod(at, pod);
        }
    }

    fn add_pod(&mut self, at: Timestamp, mut pod: PodSample) {
        let rest = pod.rest;
        let containers = std::mem::take(&mut pod.containers);
        match self.pods.get_mut(&pod.uid) {
            None => {
                let uid = Arc::clone(&pod.uid);
                let (first, last) = ((at, pod.clone()), (at, pod));
                let mut fold = PodFold {
                    first,
                    last,
                    milli_max: 0,
                    stalled_max: None,
                    rest: (None, rest),
                    containers: ContainerFold::default(),
                };
                if rest.is_some() {
                    fold.containers.add(at, containers);
                }
                self.pods.insert(uid, Box::new(fold));
            }
            Some(fold) => {
                let usec = microseconds(fold.last.0, at);
                let milli = milli_cores(fold.last.1.cpu_usec, pod.cpu_usec, usec);
                fold.milli_max = fold.milli_max.max(milli);
                if let (Some(before), Some(now)) = (fold.last.1.stalled_usec, pod.stalled_usec) {
                    fold.stalled_max = fold.stalled_max.max(Some(permille(before, now, usec)));
                }
                fold.last = (at, pod);
                if rest.is_some() {
                    fold.rest = (fold.rest.1, rest);
                    fold.containers.add(at, containers);
                }
            }
        }
    }

    /// The digest of all samples since the last one; `None` if there were fewer than two, because
    /// one sample says nothing about CPU, or nothing else was ever looked at. The last sample is the first of the next window.
    pub fn digest(&mut self) -> Option<UsageDigest> {
        let (from, first) = self.first?;
        let (until, last) = self.last?;
        let usec = microseconds(from, until);
        if usec == 0 {
            return None;
        }
        let rest = self.rest?;
        let traffic = rest.traffic_per_second();
        // Pods that were not in the last sample are gone.
        self.pods.retain(|_, fold| fold.last.0 == until);
        let digest = UsageDigest {
            interval_seconds: u32::try_from(usec.div_ceil(1_000_000)).unwrap_or(u32::MAX),
            cpu_milli_mean: milli_cores(first, last, usec),
            cpu_milli_max: self.cpu_milli_max,
            memory_working_set: rest.last.1.memory_working_set,
            pressure_permille: rest.pressure_permille(),
            network_bytes_per_second: traffic.map(|[received, sent, ..]| [received, sent]),
            disk_bytes_per_second: traffic.map(|[.., read, written]| [read, written]),
            oom_kills: rest.oom_kills(),
            gpu: None,
            source: UsageSource::Kernel,
            pods: self.pods.iter().filter_map(|(uid, fold)| fold.usage(uid)).collect(),
        };
        self.first = self.last;
        self.rest = Some(RestFold { first: rest.last, ..rest });
        self.cpu_milli_max = 0;
        for fold in self.pods.values_mut() {
            fold.first = fold.last.clone();
            (fold.milli_max, fold.stalled_max) = (0, None);
        }
        Some(digest)
    }
}

impl RestFold {
    /// Microseconds between the two readings, of each of which something was known; `None` without a second.
    fn between<T>(&self, of: impl Fn(&NodeRest) -> Option<T>) -> Option<(T, T, u64)> {
        let usec = microseconds(self.first.0, self.last.0);
        let (before, after) = of(&self.first.1).zip(of(&self.last.1))?;
        (usec > 0).then_some((before, after, usec))
    }

    fn pressure_permille(&self) -> Option<[u32; 3]> {
        let (before, after, usec) = self.between(|rest| rest.stalled_usec)?;
        let share = |kind| permille(element(&before, kind), element(&after, kind), usec);
        Some(std::array::from_fn(share))
    }

    fn traffic_per_second(&self) -> Option<[u64; 4]> {
        let (before, after, usec) = self.between(|rest| rest.traffic)?;
        let bytes = |way| element(&after, way).saturating_sub(element(&before, way));
        Some(std::array::from_fn(|way| ratio(bytes(way), 1_000_000, usec)))
    }

    fn oom_kills(&self) -> u64 {
        let counted = self.between(|rest| rest.oom_kills);
        counted.map_or(0, |(before, after, _)| after.saturating_sub(before))
    }
}

impl PodFold {
    /// The use of a pod that was there all the time: the mean of one that came just now isn't known
    /// yet.
    fn usage(&self, uid: &str) -> Option<PodUsage> {
        let usec = microseconds(self.first.0, self.last.0);
        let (first, last) = (&self.first.1, &self.last.1);
        let rest = self.rest.1?;
        if usec == 0 {
            return None;
        }
        let disk = self.rest.0.and_then(|before| before.disk_bytes).zip(rest.disk_bytes);
        let network = self.rest.0.and_then(|before| before.network).zip(rest.network);
        let before = self.rest.0.unwrap_or(rest);
        let pressure_permille = match (first.stalled_usec, last.stalled_usec, rest.stalled_usec) {
            (Some(first), Some(last), Some([memory, io])) => {
                let [memory_before, io_before] = before.stalled_usec.unwrap_or([memory, io]);
                Some([
                    permille(first, last, usec),
                    permille(memory_before, memory, usec),
                    permille(io_before, io, usec),
                ])
            }
            _ => None,
        };
        let containers = self.containers.usage();
        let own = [rest.limit.permille_since(before.limit)];
        let of_containers = containers.iter().map(|one| one.throttled_permille);
        Some(PodUsage {
            uid: uid.to_owned(),
            cpu_milli_mean: milli_cores(first.cpu_usec, last.cpu_usec, usec),
            cpu_milli_max: self.milli_max,
            throttled_permille: own.into_iter().chain(of_containers).max().unwrap_or(0),
            memory_working_set: rest.memory_working_set,
            pressure_permille,
            cpu_pressure_permille_max: self.stalled_max,
            oom_kills: rest.oom_kills.saturating_sub(before.oom_kills),
            disk_bytes_per_second: disk.map(|(before, after)| {
                std::array::from_fn(|way| {
                    let (before, after) = (element(&before, way), element(&after, way));
                    ratio(after.saturating_sub(before), 1_000_000, usec)
                })
            }),
            network_bytes_per_second: network
                .and_then(|(before, after)| after.since(before))
                .map(|bytes| bytes.map(|bytes| ratio(bytes, 1_000_000, usec))),
            cpu_milli_p90: None,
            memory_peak: None,
            containers,
            gpu: None,
        })
    }
}

fn element(values: &[u64], index: usize) -> u64 {
    values.get(index).copied().unwrap_or_default()
}

fn permille(before: u64, after: u64, usec: u64) -> u32 {
    let share = ratio(after.saturating_sub(before), 1000, usec).min(1000);
    u32::try_from(share).unwrap_or(1000)
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
