//! Pods' measured use told as what is new: most pods of most nodes do today what they did a minute ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::protocol::{ContainerUsage, GpuUsage, PodUsage, UsageDigest};

/// The use of pods by UID; copies share what they have alike.
pub type PodUses = BTreeMap<Arc<str>, Arc<PodUsage>>;

/// A change of CPU below this is none, milli-cores.
const LEAST_CPU: u64 = 5;
/// A change of memory below this is none, bytes.
const LEAST_MEMORY: u64 = 1 << 20;
/// A change of a share of time below this is none, thousandths.
const LEAST_SHARE: u64 = 10;
/// A change of a share of a single second below this is none, thousandths: one second says little.
const LEAST_SHARE_OF_A_SECOND: u64 = 50;
/// A change of traffic below this is none, bytes a second.
const LEAST_RATE: u64 = 1 << 20;

/// What is new of `now` to someone who was told `told`: the pods whose use is another now, and the UIDs of
/// those that are measured no more. A change by less than a tenth (memory: a fiftieth) is no news.
pub fn difference(told: &PodUses, now: &[PodUsage]) -> (Vec<PodUsage>, Vec<String>) {
    let changed = now
        .iter()
        .filter(|pod| told.get(pod.uid.as_str()).is_none_or(|before| is_news(before, pod)))
        .cloned()
        .collect();
    let present: BTreeSet<&str> = now.iter().map(|pod| pod.uid.as_str()).collect();
    let gone = told.keys().filter(|uid| !present.contains(uid.as_ref()));
    let gone = gone.map(|uid| uid.as_ref().to_owned()).collect();
    (changed, gone)
}

/// Brings what was told up to date with a [`difference`].
pub fn apply(told: &mut PodUses, changed: &[PodUsage], gone: &[String]) {
    for uid in gone {
        told.remove(uid.as_str());
    }
    for pod in changed {
        told.insert(Arc::from(pod.uid.as_str()), Arc::new(pod.clone()));
    }
}

/// Whether a node's own use is another now than what was told of it, by the same measures.
pub fn is_news_of_node(before: &UsageDigest, now: &UsageDigest) -> bool {
    is_other_cpu(before.cpu_milli_mean, now.cpu_milli_mean)
        || is_other_cpu(before.cpu_milli_max, now.cpu_milli_max)
        || is_other_memory(before.memory_working_set, now.memory_working_set)
        || differ(before.pressure_permille, now.pressure_permille, is_other_pressure)
        || differ(before.network_bytes_per_second, now.network_bytes_per_second, are_other_rates)
        || differ(before.disk_bytes_per_second, now.disk_bytes_per_second, are_other_rates)
        || before.oom_kills != now.oom_kills
        || differ(before.gpu.as_ref(), now.gpu.as_ref(), are_other_gpus)
        || before.source != now.source
}

fn is_news(before: &PodUsage, now: &PodUsage) -> bool {
    is_other_cpu(before.cpu_milli_mean, now.cpu_milli_mean)
        || is_other_cpu(before.cpu_milli_max, now.cpu_milli_max)
        || is_other_memory(before.memory_working_set, now.memory_working_set)
        || is_other_share(before.throttled_permille, now.throttled_permille)
        || before.oom_kills != now.oom_kills
        || differ(before.cpu_milli_p90, now.cpu_milli_p90, is_other_cpu)
        || differ(before.memory_peak, now.memory_peak, is_other_memory)
        || differ(before.pressure_permille, now.pressure_permille, is_other_pressure)
        || differ(before.cpu_pressure_permille_max, now.cpu_pressure_permille_max, is_other_second)
        || differ(before.disk_bytes_per_second, now.disk_bytes_per_second, are_other_rates)
        || differ(before.network_bytes_per_second, now.network_bytes_per_second, are_other_rates)
        || differ(before.gpu.as_deref(), now.gpu.as_deref(), are_other_gpus)
        || before.containers.len() != now.containers.len()
        || before.containers.iter().zip(&now.containers).any(|(before, now)| is_other(before, now))
}

fn is_other(before: &ContainerUsage, now: &ContainerUsage) -> bool {
    let is_other_cpu = |before: u32, now: u32| is_other_cpu(before.into(), now.into());
    before.name != now.name
        || is_other_cpu(before.cpu_milli_mean, now.cpu_milli_mean)
        || is_other_memory(before.memory_working_set, now.memory_working_set)
        || is_other_share(before.throttled_permille, now.throttled_permille)
        || before.oom_kills != now.oom_kills
        || differ(before.cpu_milli_p90, now.cpu_milli_p90, is_other_cpu)
        || differ(before.memory_peak, now.memory_peak, is_other_memory)
}

fn is_other_cpu(before: u64, now: u64) -> bool {
    is_far(before, now, 10, LEAST_CPU)
}

fn is_other_memory(before: u64, now: u64) -> bool {
    is_far(before, now, 50, LEAST_MEMORY)
}

fn is_other_share(before: u32, now: u32) -> bool {
    is_far(before.into(), now.into(), 10, LEAST_SHARE)
}

fn is_other_pressure(before: [u32; 3], now: [u32; 3]) -> bool {
    before.into_iter().zip(now).any(|(before, now)| is_other_share(before, now))
}

fn is_other_second(before: u32, now: u32) -> bool {
    is_far(before.into(), now.into(), 5, LEAST_SHARE_OF_A_SECOND)
}

fn are_other_gpus(before: &GpuUsage, now: &GpuUsage) -> bool {
    before.count != now.count
        || differ(before.busy_permille, now.busy_permille, is_other_share)
        || differ(before.memory_used, now.memory_used, is_other_memory)
        || differ(before.memory_free, now.memory_free, is_other_memory)
}

fn are_other_rates(before: [u64; 2], now: [u64; 2]) -> bool {
    before.into_iter().zip(now).any(|(before, now)| is_far(before, now, 10, LEAST_RATE))
}

/// Known differs from unknown.
fn differ<T>(before: Option<T>, now: Option<T>, far: impl Fn(T, T) -> bool) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => far(before, now),
        (None, None) => false,
        _ => true,
    }
}

fn is_far(before: u64, now: u64, part: u64, least: u64) -> bool {
    before.abs_diff(now) >= least.max(before / part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::UsageSource;

    fn told_of(pod: PodUsage) -> PodUses {
        PodUses::from([(Arc::from(""), Arc::new(pod))])
    }

    fn pod() -> impl Strategy<Value = PodUsage> {
        (0_u8..6, 0_u64..40, 0_u64..4_000, proptest::option::of(0_u32..30)).prop_map(
            |(name, cpu, mebibytes, pressure)| PodUsage {
                uid: format!("pod-{name}"),
                cpu_milli_mean: cpu,
                memory_working_set: mebibytes << 19,
                pressure_permille: pressure.map(|share| [share, 0, 0]),
                ..PodUsage::default()
            },
        )
    }

    fn pods() -> impl Strategy<Value = Vec<PodUsage>> {
        let unique = |pods: Vec<PodUsage>| -> Vec<PodUsage> {
            let by_uid: BTreeMap<String, PodUsage> =
                pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
            by_uid.into_values().collect()
        };
        proptest::collection::vec(pod(), 0..6).prop_map(unique)
    }

    proptest! {
        #[test]
        fn what_is_told_stays_near_what_is(history in proptest::collection::vec(pods(), 1..20)) {
            let mut told = PodUses::new();
            for now in history {
                let (changed, gone) = difference(&told, &now);
                apply(&mut told, &changed, &gone);
                prop_assert!(told.keys().map(AsRef::as_ref).eq(now.iter().map(|pod| pod.uid.as_str())));
                for pod in &now {
                    let heard = &told[pod.uid.as_str()];
                    prop_assert!(heard.cpu_milli_mean.abs_diff(pod.cpu_milli_mean) < 6);
                    let off = heard.memory_working_set.abs_diff(pod.memory_working_set);
                    prop_assert!(off < (1 << 20).max(heard.memory_working_set / 49));
                    prop_assert_eq!(
                        heard.pressure_permille.is_some(),
                        pod.pressure_permille.is_some()
                    );
                }
                prop_assert_eq!(difference(&told, &now), (Vec::new(), Vec::new()));
            }
        }
    }

    #[test]
    fn a_node_has_news_when_anything_it_measures_is_another() {
        let before = UsageDigest {
            cpu_milli_mean: 1_000,
            memory_working_set: 1 << 30,
            pressure_permille: Some([0; 3]),
            network_bytes_per_second: Some([10 << 20, 0]),
            ..UsageDigest::default()
        };
        let with = |change: &dyn Fn(&mut UsageDigest)| {
            let mut now = before.clone();
            change(&mut now);
            is_news_of_node(&before, &now)
        };
        assert!(!with(&|_| ()));
        assert!(!with(&|now| now.cpu_milli_mean = 1_090));
        assert!(with(&|now| now.cpu_milli_mean = 1_100));
        assert!(with(&|now| now.cpu_milli_max = 50));
        assert!(!with(&|now| now.memory_working_set += 1 << 20));
        assert!(with(&|now| now.memory_working_set += 1 << 28));
        assert!(with(&|now| now.pressure_permille = Some([0, 0, 50])));
        assert!(with(&|now| now.oom_kills = 1));
        assert!(with(&|now| now.pressure_permille = None));
        assert!(with(&|now| now.network_bytes_per_second = Some([10 << 20, 2 << 20])));
        assert!(with(&|now| now.disk_bytes_per_second = Some([0; 2])));
        assert!(with(&|now| now.source = UsageSource::Kubelet));
        assert!(!with(&|now| now.interval_seconds = 20), "how long it took is none");
    }

    #[test]
    fn what_changes_little_is_no_news_and_a_killed_process_is() {
        let before = PodUsage { cpu_milli_mean: 1_000, ..PodUsage::default() };
        let told = told_of(before.clone());
        let news = |now: PodUsage| !difference(&told, &[now]).0.is_empty();
        assert!(!news(PodUsage { cpu_milli_mean: 1_099, ..before.clone() }));
        assert!(news(PodUsage { cpu_milli_mean: 1_100, ..before.clone() }));
        assert!(news(PodUsage { oom_kills: 1, ..before.clone() }));
        let stalled = |permille| PodUsage { cpu_pressure_permille_max: permille, ..before.clone() };
        assert!(news(stalled(Some(0))));
        let between = |before, now| is_news(&stalled(Some(before)), &stalled(Some(now)));
        assert!(!between(0, 49) && between(0, 50) && !between(500, 599) && between(500, 600));
        assert!(!news(PodUsage { disk_bytes_per_second: None, ..before.clone() }));
        assert!(news(PodUsage { disk_bytes_per_second: Some([0; 2]), ..before.clone() }));
        let network = |received, sent| PodUsage {
            network_bytes_per_second: Some([received, sent]),
            ..before.clone()
        };
        assert!(news(network(0, 0)), "it was unknown");
        let told = told_of(network(100 << 20, 0));
        let news = |now: PodUsage| !difference(&told, &[now]).0.is_empty();
        assert!(!news(network(109 << 20, (1 << 20) - 1)));
        assert!(news(network(110 << 20, 0)) && news(network(100 << 20, 1 << 20)));
        assert!(news(before.clone()), "it is unknown by now");
    }

    #[test]
    fn containers_have_news_by_the_same_measures() {
        let container = |name: &str, cpu_milli_mean| ContainerUsage {
            name: name.into(),
            cpu_milli_mean,
            cpu_milli_p90: Some(200),
            ..ContainerUsage::default()
        };
        let pod = |containers| PodUsage { containers, ..PodUsage::default() };
        let told = told_of(pod(vec![container("a", 100), container("b", 9)]));
        for (containers, expected) in [
            (vec![container("a", 109), container("b", 13)], false),
            (vec![container("a", 110), container("b", 9)], true),
            (vec![container("a", 100)], true),
            (vec![container("a", 100), container("c", 9)], true),
            (
                vec![
                    container("a", 100),
                    ContainerUsage { cpu_milli_p90: None, ..container("b", 9) },
                ],
                true,
            ),
        ] {
            let news = !difference(&told, &[pod(containers.clone())]).0.is_empty();
            assert_eq!(news, expected, "{containers:?}");
        }
    }

    #[test]
    fn gpus_have_news_by_the_same_measures() {
        let gpu = |busy, used| {
            let (busy_permille, memory_used) = (Some(busy), Some(used));
            Some(GpuUsage { count: 1, busy_permille, memory_used, memory_free: None })
        };
        let node = |gpu| UsageDigest { gpu, ..UsageDigest::default() };
        let pod =
            |gpu: Option<GpuUsage>| PodUsage { gpu: gpu.map(Box::new), ..PodUsage::default() };
        for (now, expected) in [
            (gpu(509, 1 << 30), false),
            (gpu(550, 1 << 30), true),
            (gpu(500, 1 << 31), true),
            (None, true),
            (gpu(500, 1 << 30).map(|gpu| GpuUsage { count: 2, ..gpu }), true),
        ] {
            let before = gpu(500, 1 << 30);
            assert_eq!(is_news_of_node(&node(before), &node(now)), expected, "{now:?}");
            let told = told_of(pod(before));
            assert_eq!(!difference(&told, &[pod(now)]).0.is_empty(), expected, "{now:?}");
        }
    }
}
