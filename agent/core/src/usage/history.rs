//! What containers used over days: a decaying histogram of CPU, and memory's daily peaks.

use std::collections::BTreeMap;

use drover_common::protocol::{PodUsage, UsageDigest, UsageSource};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::container::{ContainerName, ContainerNames, small};
use super::histogram::{Checkpoint, Histogram};
use super::peaks::Peaks;

/// The version of what is kept on disk: 1 was by pod, 2 had histograms of memory. Another one is not taken up.
pub const HISTORY_VERSION: u32 = 3;

/// A pod that was not measured for so long is forgotten.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// The Vertical Pod Autoscaler weighs a sample by the container's request, which hardly ever changes in a
/// pod's life: within one container it makes no difference.
const WEIGHT: f64 = 1.0;
/// Stands for all containers of a pod that the kubelet measures. No container is called so.
const WHOLE: SmolStr = SmolStr::new_static("");

/// The history of the containers of one node.
#[derive(Clone, Debug, Default)]
pub struct History {
    pods: BTreeMap<String, PodHistory>,
}

#[derive(Clone, Debug)]
struct PodHistory {
    /// By name: those that run and those that ran, for a restarted one goes on where it was. Boxed, because a map of
    /// one would have room for eleven, and most pods have one.
    containers: BTreeMap<SmolStr, Box<ContainerHistory>>,
    seen_at: Timestamp,
}

#[derive(Clone, Debug)]
struct ContainerHistory {
    cpu: Histogram,
    memory: Peaks,
    /// Whether it was measured the last time.
    runs: bool,
}

/// What is kept of a [`History`] over restarts, by pod UID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHistory {
    #[serde(default)]
    version: u32,
    /// No other version's part is called so: what can't be read is no reason not to see which it is.
    #[serde(default)]
    histories: BTreeMap<String, SavedPod>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedPod {
    seen_at: Timestamp,
    containers: BTreeMap<SmolStr, Box<SavedContainer>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedContainer {
    cpu: Checkpoint,
    memory: Peaks,
}

impl History {
    /// Takes in a digest, and writes into it what it adds up to: the 90th percentile of CPU and the
    /// highest memory of the last days, of containers and, as their sum, of pods. Of a pod it's known once
    /// it is of all containers that `names` has of it.
    pub fn take(&mut self, digest: &mut UsageDigest, names: &ContainerNames, now: Timestamp) {
        let source = digest.source;
        for pod in &mut digest.pods {
            let history = self
                .pods
                .entry(pod.uid.clone())
                .or_insert_with(|| PodHistory { containers: BTreeMap::new(), seen_at: now });
            history.seen_at = now;
            match source {
                UsageSource::Kernel => {
                    history.take_containers(pod, now);
                    let names = names.get(pod.uid.as_str()).map_or(&[][..], Vec::as_slice);
                    history.sum_up(pod, names, now);
                }
                UsageSource::Kubelet => history.take_whole(pod, now),
            }
        }
        // A clock may have been set back: what was seen long after now is as old as what was seen long before.
        let apart = |history: &PodHistory| now.duration_since(history.seen_at).abs();
        self.pods.retain(|_, history| apart(history) < FORGET_AFTER);
    }

    /// What to keep on disk.
    pub fn save(&self) -> SavedHistory {
        let saved = |history: &ContainerHistory| {
            Box::new(SavedContainer {
                cpu: history.cpu.checkpoint(),
                memory: history.memory.clone(),
            })
        };
        let pod = |(uid, history): (&String, &PodHistory)| {
            let containers = history.containers.iter();
            let containers = containers.map(|(name, one)| (name.clone(), saved(one))).collect();
            (uid.clone(), SavedPod { seen_at: history.seen_at, containers })
        };
        SavedHistory { version: HISTORY_VERSION, histories: self.pods.iter().map(pod).collect() }
    }

    /// What was kept; containers whose part makes no sense begin anew, as all do after another version.
    pub fn restore(kept: &SavedHistory) -> Self {
        if kept.version != HISTORY_VERSION {
            return Self::default();
        }
        let container = |name: &SmolStr, kept: &SavedContainer| {
            let history = ContainerHistory {
                cpu: Histogram::restore(&kept.cpu)?,
                memory: kept.memory.clone(),
                runs: false,
            };
            Some((name.clone(), Box::new(history)))
        };
        let pod = |(uid, kept): (&String, &SavedPod)| {
            let containers =
                kept.containers.iter().filter_map(|(name, one)| container(name, one)).collect();
            (uid.clone(), PodHistory { containers, seen_at: kept.seen_at })
        };
        Self { pods: kept.histories.iter().map(pod).collect() }
    }
}

impl PodHistory {
    fn take_containers(&mut self, pod: &mut PodUsage, now: Timestamp) {
        self.containers.remove(&WHOLE);
        let counted: u64 = pod.containers.iter().map(|one| u64::from(one.oom_kills)).sum();
        // A container that is killed as a whole takes its own count along; the pod's remains.
        let one_fell = pod.oom_kills > counted;
        for (name, history) in &mut self.containers {
            let ran = history.runs;
            history.runs = pod.containers.iter().any(|one| one.name == *name);
            if one_fell && ran && !history.runs {
                history.memory.add_kill(now);
            }
        }
        for one in &mut pod.containers {
            let history = self.container(&one.name);
            history.add(one.cpu_milli_mean.into(), one.memory_working_set, now);
            if one.oom_kills > 0 {
                history.memory.add_kill(now);
            }
            one.cpu_milli_p90 = history.cpu_milli_p90().map(small);
            one.memory_peak = history.memory.highest(now);
        }
    }

    /// Of init containers only those that run are counted in.
    fn sum_up(&self, pod: &mut PodUsage, names: &[ContainerName], now: Timestamp) {
        let runs = |name: &SmolStr| pod.containers.iter().any(|one| one.name == *name);
        let counted: Option<Vec<&ContainerHistory>> = names
            .iter()
            .filter(|one| one.lasts || runs(&one.name))
            .map(|one| self.containers.get(&one.name).map(AsRef::as_ref))
            .collect();
        // Without any name nothing is known, and that is not zero.
        let counted = counted.filter(|counted| !counted.is_empty()).unwrap_or_default();
        let sum = |figures: &mut dyn Iterator<Item = Option<u64>>| {
            figures.reduce(|sum, one| Some(sum?.saturating_add(one?))).flatten()
        };
        pod.cpu_milli_p90 = sum(&mut counted.iter().map(|one| one.cpu_milli_p90()));
        pod.memory_peak = sum(&mut counted.iter().map(|one| one.memory.highest(now)));
    }

    /// The pod as one, because nobody tells its containers apart.
    fn take_whole(&mut self, pod: &mut PodUsage, now: Timestamp) {
        let history = self.container(&WHOLE);
        history.add(pod.cpu_milli_mean, pod.memory_working_set, now);
        pod.cpu_milli_p90 = history.cpu_milli_p90();
        pod.memory_peak = history.memory.highest(now);
    }

    fn container(&mut self, name: &SmolStr) -> &mut ContainerHistory {
        self.containers.entry(name.clone()).or_insert_with(|| Box::new(ContainerHistory::new()))
    }
}

impl ContainerHistory {
    fn new() -> Self {
        Self { cpu: Histogram::default(), memory: Peaks::default(), runs: true }
    }

    fn add(&mut self, cpu_milli: u64, bytes: u64, now: Timestamp) {
        self.cpu.add(cpu_milli as f64 / 1000.0, WEIGHT, now);
        self.memory.add(bytes, now);
    }

    fn cpu_milli_p90(&self) -> Option<u64> {
        self.cpu.percentile(0.9).map(|cores| (cores * 1000.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drover_common::protocol::ContainerUsage;

    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hours * 3_600).unwrap()
    }

    /// Name, milli-cores, mebibytes, kills.
    type Told<'a> = (&'a str, u32, u64, u32);

    fn names(names: &[(&str, bool)]) -> ContainerNames {
        let name =
            |&(name, lasts): &(&str, bool)| ContainerName { name: name.into(), id: None, lasts };
        ContainerNames::from([(Arc::from("a"), names.iter().map(name).collect())])
    }

    fn digest(told: &[Told<'_>], kills: u64) -> UsageDigest {
        let container = |&(name, cpu_milli_mean, mebibytes, oom_kills): &Told<'_>| ContainerUsage {
            name: name.into(),
            cpu_milli_mean,
            memory_working_set: mebibytes << 20,
            oom_kills,
            ..ContainerUsage::default()
        };
        let pod = PodUsage {
            uid: "a".into(),
            oom_kills: kills,
            containers: told.iter().map(container).collect(),
            ..PodUsage::default()
        };
        UsageDigest { pods: vec![pod], ..UsageDigest::default() }
    }

    fn take(
        history: &mut History,
        told: &[Told<'_>],
        kills: u64,
        names: &ContainerNames,
        hour: i64,
    ) -> PodUsage {
        let mut digest = digest(told, kills);
        history.take(&mut digest, names, at(hour));
        digest.pods.remove(0)
    }

    /// A bucket is 5 % wide, and the first 10 milli-cores.
    fn near(found: Option<u64>, expected: u64) -> bool {
        found.is_some_and(|found| found >= expected && found <= expected * 107 / 100 + 10)
    }

    fn mebibytes(found: Option<u64>) -> Option<u64> {
        found.map(|bytes| bytes >> 20)
    }

    #[test]
    fn percentiles_and_peaks_outlive_quiet_hours_and_restarts_of_agent_and_container() {
        let mut history = History::default();
        let names = names(&[("web", true), ("log", true)]);
        for hour in 0..20 {
            let cpu = if hour < 4 { 900 } else { 100 };
            take(&mut history, &[("web", cpu, 300, 0), ("log", 50, 20, 0)], 0, &names, hour);
        }
        take(&mut history, &[("web", 100, 700, 0), ("log", 50, 20, 0)], 0, &names, 20);
        // Restarted: the one of the same name has not been measured yet.
        let pod = take(&mut history, &[("log", 50, 20, 0)], 0, &names, 21);
        assert!(near(pod.cpu_milli_p90, 950) && mebibytes(pod.memory_peak) == Some(720), "{pod:?}");
        let pod = take(&mut history, &[("web", 100, 200, 0), ("log", 50, 20, 0)], 0, &names, 22);
        let [web, log] = &pod.containers[..] else { panic!("{pod:?}") };
        assert!(near(web.cpu_milli_p90.map(u64::from), 900), "{web:?}");
        assert!(mebibytes(web.memory_peak) == Some(700), "{web:?}");
        assert!(near(log.cpu_milli_p90.map(u64::from), 50), "{log:?}");
        assert!(mebibytes(log.memory_peak) == Some(20), "{log:?}");

        let text = serde_json::to_string(&history.save()).unwrap();
        let mut restored = History::restore(&serde_json::from_str(&text).unwrap());
        let again = take(&mut restored, &[("web", 100, 200, 0)], 0, &names, 22);
        assert_eq!(again.memory_peak, pod.memory_peak);
        assert!(near(again.containers[0].cpu_milli_p90.map(u64::from), 900), "{again:?}");
    }

    #[test]
    fn a_pods_sums_are_unknown_while_a_container_is() {
        let mut history = History::default();
        let figures = |pod: PodUsage| (pod.cpu_milli_p90, pod.memory_peak);
        let web = [("web", 100, 200, 0)];
        assert_eq!(figures(take(&mut history, &web, 0, &ContainerNames::new(), 0)), (None, None));
        let two = names(&[("web", true), ("log", true)]);
        assert_eq!(figures(take(&mut history, &web, 0, &two, 0)), (None, None));
        let init = names(&[("web", true), ("init", false)]);
        let alone = take(&mut history, &web, 0, &init, 0);
        assert!(
            mebibytes(alone.memory_peak) == Some(200),
            "an init container has ended: {alone:?}"
        );
        let sidecar = take(&mut history, &[web[0], ("init", 10, 50, 0)], 0, &init, 0);
        assert!(mebibytes(sidecar.memory_peak) == Some(250), "{sidecar:?}");
    }

    #[test]
    fn a_kill_counts_as_what_was_not_given_to_whom_it_was_not() {
        let web = names(&[("web", true), ("log", true)]);
        let both = [("web", 10, 200, 0), ("log", 10, 20, 0)];
        let peaks = |pod: &PodUsage| -> Vec<u64> {
            pod.containers.iter().map(|one| one.memory_peak.unwrap() >> 20).collect()
        };
        // A process of it was killed, and it goes on.
        let mut history = History::default();
        take(&mut history, &both, 0, &web, 0);
        let pod = take(&mut history, &[("web", 10, 100, 1), both[1]], 1, &web, 0);
        assert_eq!(peaks(&pod), [300, 20]);
        // It was killed itself, and its count with it.
        let mut history = History::default();
        take(&mut history, &both, 0, &web, 0);
        take(&mut history, &both[1..], 1, &web, 0);
        let pod = take(&mut history, &both, 0, &web, 0);
        assert_eq!(peaks(&pod), [300, 20]);
        // Who was gone already was not killed.
        let mut history = History::default();
        take(&mut history, &both, 0, &web, 0);
        take(&mut history, &both[..1], 0, &web, 0);
        take(&mut history, &[], 1, &web, 0);
        let pod = take(&mut history, &both, 0, &web, 0);
        assert_eq!(peaks(&pod), [300, 20]);
    }

    #[test]
    fn a_pod_that_the_kubelet_measures_is_one() {
        let mut history = History::default();
        let mut digest = digest(&[], 0);
        digest.source = UsageSource::Kubelet;
        digest.pods[0].memory_working_set = 200 << 20;
        history.take(&mut digest, &ContainerNames::new(), at(0));
        assert!(mebibytes(digest.pods[0].memory_peak) == Some(200), "{digest:?}");
        // Both are not kept.
        take(&mut history, &[("web", 10, 100, 0)], 0, &names(&[("web", true)]), 0);
        let kept: Vec<_> = history.pods["a"].containers.keys().collect();
        assert_eq!(kept, ["web"]);
    }

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let mut history = History::default();
        let none = ContainerNames::new();
        take(&mut history, &[("web", 10, 200, 0)], 0, &none, 0);
        history.take(&mut UsageDigest::default(), &none, at(2));
        assert!(history.pods.is_empty());
    }

    #[test]
    fn a_container_without_a_figure_leaves_its_pod_without() {
        let mut history = History::default();
        let names = names(&[("web", true), ("log", true)]);
        take(&mut history, &[("web", 10, 200, 0), ("log", 10, 20, 0)], 0, &names, 0);
        let mut kept = serde_json::to_value(history.save()).unwrap();
        kept["histories"]["a"]["containers"]["log"]["memory"] = serde_json::json!([]);
        let mut history = History::restore(&serde_json::from_value(kept).unwrap());
        let pod = take(&mut history, &[("web", 10, 200, 0)], 0, &names, 0);
        assert!(pod.containers[0].memory_peak.is_some() && pod.memory_peak.is_none(), "{pod:?}");
        assert!(pod.cpu_milli_p90.is_some(), "{pod:?}");
    }

    #[test]
    fn another_version_begins_anew() {
        let mut history = History::default();
        take(&mut history, &[("web", 10, 200, 0)], 0, &ContainerNames::new(), 0);
        let mut kept = history.save();
        assert_eq!(History::restore(&kept).pods.len(), 1);
        kept.version = HISTORY_VERSION + 1;
        assert!(History::restore(&kept).pods.is_empty());
        let first = include_str!("../../tests/corpus/protocol/history-of-pods.json");
        assert!(History::restore(&serde_json::from_str(first).unwrap()).pods.is_empty());
        let second = include_str!("../../tests/corpus/protocol/history-of-histograms.json");
        assert!(History::restore(&serde_json::from_str(second).unwrap()).pods.is_empty());
        let third = include_str!("../../tests/corpus/protocol/history.json");
        assert_eq!(History::restore(&serde_json::from_str(third).unwrap()).pods.len(), 1);
    }
}
