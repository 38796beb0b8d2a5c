//! What a kubelet tells of its node and pods at `/metrics/resource`, folded to use.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use drover_common::protocol::{PodUsage, UsageDigest, UsageSource};
use jiff::{SignedDuration, Timestamp};

use super::exposition::Exposed;
use super::{microseconds, milli_cores};

/// The UIDs of pods by namespace and name: those of this node that run.
pub type PodNames = BTreeMap<ObjectKey, Arc<str>>;

/// What was measured longer ago says nothing of now. A kubelet measures each 10 to 20 s.
const OLDEST: SignedDuration = SignedDuration::from_mins(2);
/// How far a kubelet's clock, which is the agent's own, may seem to be ahead.
const AHEAD: SignedDuration = SignedDuration::from_secs(30);
/// Between two measurements that make a rate, microseconds.
const LEAST_USEC: u64 = 1_000_000;

/// One answer of the kubelet. Only pods whose names are known are taken from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeletReading {
    node: Series,
    pods: BTreeMap<Arc<str>, Series>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Series {
    cpu: Option<Counter>,
    memory: Option<u64>,
}

/// CPU time as of a measurement, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counter {
    at: Timestamp,
    usec: u64,
}

impl KubeletReading {
    /// Takes in a line; whatever tells nothing of this node or its pods now is passed over.
    pub fn take(&mut self, line: &str, names: &PodNames, now: Timestamp) {
        let Some(sample) = Exposed::parse(line) else { return };
        let at = sample.at.map_or(Ok(now), Timestamp::from_millisecond);
        let Some(at) = at.ok().filter(|at| is_recent(*at, now)) else { return };
        let Some(value) = amount(sample.value) else { return };
        let (is_cpu, series) = match sample.name {
            "node_cpu_usage_seconds_total" => (true, &mut self.node),
            "node_memory_working_set_bytes" => (false, &mut self.node),
            name @ ("pod_cpu_usage_seconds_total" | "pod_memory_working_set_bytes") => {
                let key = sample.label("namespace").zip(sample.label("pod"));
                let uid =
                    key.and_then(|(namespace, pod)| names.get(&ObjectKey::new(namespace, pod)));
                let Some(uid) = uid else { return };
                let series = self.pods.entry(Arc::clone(uid)).or_default();
                (name.starts_with("pod_cpu"), series)
            }
            _ => return,
        };
        if is_cpu {
            series.cpu = Some(Counter { at, usec: (value * 1e6) as u64 });
        } else {
            series.memory = Some(value as u64);
        }
    }

    /// Whether it tells anything at all: a kubelet that knows no such metrics does not.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(at);
    age <= OLDEST && age >= -AHEAD
}

/// A number that can be an amount of something.
pub(super) fn amount(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// Answers of the kubelet, one after the other.
#[derive(Clone, Debug, Default)]
pub struct KubeletFold {
    node: Known,
    pods: BTreeMap<Arc<str>, Known>,
}

/// What is known of a node or a pod.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    last: Option<Counter>,
    rate: Option<Rate>,
    memory: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    milli: u64,
    usec: u64,
}

/// Use as the kubelet tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeletUse {
    /// The node's, without pods, where it is known.
    pub node: Option<UsageDigest>,
    /// Its pods'.
    pub pods: Vec<PodUsage>,
}

impl KubeletFold {
    /// Takes in an answer. Pods that it does not name are gone.
    pub fn add(&mut self, reading: KubeletReading) {
        self.node.add(reading.node);
        self.pods.retain(|uid, _| reading.pods.contains_key(uid));
        for (uid, series) in reading.pods {
            self.pods.entry(uid).or_default().add(series);
        }
    }

    /// What it amounts to. Whose CPU use or memory is not known is left out.
    pub fn usage(&self) -> KubeletUse {
        let node = self.node.told().map(|(rate, memory)| UsageDigest {
            interval_seconds: u32::try_from(rate.usec.div_ceil(1_000_000)).unwrap_or(u32::MAX),
            cpu_milli_mean: rate.milli,
            cpu_milli_max: rate.milli,
            memory_working_set: memory,
            source: UsageSource::Kubelet,
            ..UsageDigest::default()
        });
        let pods = self.pods.iter().filter_map(|(uid, known)| {
            let (rate, memory) = known.told()?;
            Some(PodUsage {
                uid: uid.as_ref().to_owned(),
                cpu_milli_mean: rate.milli,
                cpu_milli_max: rate.milli,
                memory_working_set: memory,
                ..PodUsage::default()
            })
        });
        KubeletUse { node, pods: pods.collect() }
    }
}

impl Known {
    fn add(&mut self, series: Series) {
        self.memory = series.memory;
        let (Some(now), Some(last)) = (series.cpu, self.last) else {
            (self.last, self.rate) = (series.cpu, None);
            return;
        };
        let usec = microseconds(last.at, now.at);
        if now.usec < last.usec || now.at < last.at {
            // Something was restarted, or the clock was set: how much was used in between is unknown.
            self.rate = None;
        } else if usec >= LEAST_USEC {
            self.rate = Some(Rate { milli: milli_cores(last.usec, now.usec, usec), usec });
        } else {
            // Not measured anew.
            return;
        }
        self.last = Some(now);
    }

    fn told(&self) -> Option<(Rate, u64)> {
        self.rate.zip(self.memory)
    }
}

impl KubeletUse {
    /// One digest of the kernel's word on the node, where there is one, and the kubelet's on the rest. `None` where
    /// neither knows of the node.
    pub fn complete(self, kernel: Option<UsageDigest>) -> Option<UsageDigest> {
        let node = kernel.or(self.node)?;
        Some(UsageDigest { source: UsageSource::Kubelet, pods: self.pods, ..node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn names() -> PodNames {
        [("d/web", "u-web"), ("d/db", "u-db")]
            .into_iter()
            .map(|(key, uid)| {
                let (namespace, name) = key.split_once('/').unwrap();
                (ObjectKey::new(namespace, name), Arc::from(uid))
            })
            .collect()
    }

    /// CPU seconds of the node and pods, measured at a time.
    fn reading(measured: i64, node: f64, pods: &[(&str, f64)], now: i64) -> KubeletReading {
        let time = at(measured).as_millisecond();
        let mut lines = vec![
            "# TYPE node_cpu_usage_seconds_total counter".to_owned(),
            format!("node_cpu_usage_seconds_total {node} {time}"),
            format!("node_memory_working_set_bytes 1.5e+09 {time}"),
        ];
        for (name, cpu) in pods {
            let labels = format!("{{namespace=\"d\",pod=\"{name}\"}}");
            lines.push(format!("pod_cpu_usage_seconds_total{labels} {cpu} {time}"));
            lines.push(format!("pod_memory_working_set_bytes{labels} 1048576 {time}"));
        }
        let mut reading = KubeletReading::default();
        lines.iter().for_each(|line| reading.take(line, &names(), at(now)));
        reading
    }

    fn pods(fold: &KubeletFold) -> Vec<(String, u64)> {
        fold.usage().pods.into_iter().map(|pod| (pod.uid, pod.cpu_milli_mean)).collect()
    }

    #[test]
    fn rates_are_of_the_times_of_measurement_and_not_of_asking() {
        let mut fold = KubeletFold::default();
        fold.add(reading(0, 100.0, &[("web", 10.0), ("stranger", 1.0)], 9));
        assert_eq!(fold.usage(), KubeletUse::default(), "one reading is no rate");
        fold.add(reading(20, 110.0, &[("web", 20.0), ("db", 5.0)], 24));
        let usage = fold.usage();
        let node = usage.node.clone().unwrap();
        assert_eq!((node.cpu_milli_mean, node.memory_working_set), (500, 1_500_000_000));
        assert_eq!((node.interval_seconds, node.pressure_permille), (20, None));
        assert_eq!(pods(&fold), [("u-web".to_owned(), 500)], "db came just now");
        assert_eq!(usage.pods[0].memory_working_set, 1 << 20);
        // Asked again before it measured again.
        fold.add(reading(20, 110.0, &[("web", 20.0), ("db", 5.0)], 39));
        assert_eq!(pods(&fold), [("u-web".to_owned(), 500)]);
        fold.add(reading(40, 110.0, &[("db", 9.0)], 41));
        assert_eq!(pods(&fold), [("u-db".to_owned(), 200)], "web is gone");
    }

    #[test]
    fn counters_that_begin_anew_are_unknown_for_once() {
        let mut fold = KubeletFold::default();
        fold.add(reading(0, 100.0, &[("web", 900.0)], 0));
        fold.add(reading(10, 101.0, &[("web", 901.0)], 10));
        // One of its containers was restarted: the sum fell, and says nothing of the time between.
        fold.add(reading(20, 102.0, &[("web", 890.0)], 20));
        assert_eq!(pods(&fold), []);
        assert_eq!(fold.usage().node.unwrap().cpu_milli_mean, 100);
        fold.add(reading(30, 103.0, &[("web", 892.0)], 30));
        assert_eq!(pods(&fold), [("u-web".to_owned(), 200)]);
        // The clock was set back.
        fold.add(reading(-50, 104.0, &[("web", 893.0)], -50));
        assert_eq!((pods(&fold), fold.usage().node), (vec![], None));
        fold.add(reading(-40, 105.0, &[("web", 894.0)], -40));
        assert_eq!(pods(&fold), [("u-web".to_owned(), 100)]);
    }

    #[test]
    fn old_foreign_and_impossible_numbers_are_unknown() {
        assert!(reading(0, 1.0, &[("web", 1.0)], 121).is_empty(), "too old");
        assert!(reading(31, 1.0, &[("web", 1.0)], 0).is_empty(), "from the future");
        let mut reading = KubeletReading::default();
        for line in [
            "node_cpu_usage_seconds_total NaN",
            "node_cpu_usage_seconds_total -1",
            "node_memory_working_set_bytes +Inf",
            "pod_cpu_usage_seconds_total{namespace=\"d\"} 1",
            "pod_cpu_usage_seconds_total{namespace=\"e\",pod=\"web\"} 1",
            "container_cpu_usage_seconds_total{namespace=\"d\",pod=\"web\",container=\"c\"} 1",
        ] {
            reading.take(line, &names(), at(0));
        }
        assert!(reading.is_empty(), "{reading:?}");
    }

    #[test]
    fn the_kernels_word_on_the_node_is_kept() {
        let mut fold = KubeletFold::default();
        fold.add(reading(0, 0.0, &[("web", 0.0)], 0));
        fold.add(reading(10, 10.0, &[("web", 1.0)], 10));
        let kernel = UsageDigest {
            cpu_milli_mean: 7,
            pressure_permille: Some([1, 2, 3]),
            ..UsageDigest::default()
        };
        let digest = fold.usage().complete(Some(kernel)).unwrap();
        assert_eq!((digest.cpu_milli_mean, digest.pressure_permille), (7, Some([1, 2, 3])));
        assert_eq!((digest.pods.len(), digest.source), (1, UsageSource::Kubelet));
        let alone = fold.usage().complete(None).unwrap();
        assert_eq!((alone.cpu_milli_mean, alone.pods.len()), (1_000, 1));
        assert_eq!(KubeletUse::default().complete(None), None, "unknown stays unknown");
    }
}
