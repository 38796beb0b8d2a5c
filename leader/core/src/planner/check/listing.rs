//! What a launch lists: no type dearer or larger than it should.
//!
//! Where a rule has exceptions that hang on more than the launch itself (limits, `minValues`,
//! preferences, spread over labels of types), it is not applied, so that all it finds is wrong.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::resources::ResourceName;
use smol_str::SmolStr;

use super::host::hosts_of_launch;
use super::{Violation, check_host, diversity, pod_of, violation};
use crate::planner::{Launch, LaunchOffering, Plan, PlanInput};

/// Types that a launch may list whatever they cost; on spot it is the setting, if that is more.
const AT_ANY_PRICE: usize = 5;
/// What other types may cost, in percent of the cheapest.
const CEILING_PERCENT: u128 = 150;

pub(super) fn check(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    for (number, launch) in plan.launches.iter().enumerate() {
        let subject = format!("launch {number}");
        check_ceiling(input, &subject, launch, violations);
        // A large node that is reserved is paid for, used or not.
        if launch.reservation.is_none() && is_plain(input, launch) {
            check_size(input, number, launch, violations);
        }
        check_diversity(input, number, launch, violations);
    }
}

/// Whether a spot launch lists enough types.
pub(super) fn check_diversity(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    if launch.reservation.is_none() && is_plain(input, launch) {
        diversity::check(input, number, launch, violations);
    }
}

/// Types with their lowest price, in the order of the list, which is by price.
pub(super) fn types_of(launch: &Launch) -> Vec<(&str, Option<u64>)> {
    let mut types: Vec<(&str, Option<u64>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for offering in &launch.offerings {
        if seen.insert(offering.instance_type.as_str()) {
            types.push((&offering.instance_type, offering.price_micro));
        }
    }
    types
}

fn check_ceiling(
    input: &PlanInput<'_>,
    subject: &str,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    let types = types_of(launch);
    let Some(lowest) = types.first().and_then(|(_, price)| *price) else { return };
    let ceiling = u128::from(lowest) * CEILING_PERCENT / 100;
    let free = match launch.capacity_type {
        CapacityType::Spot => input.settings.min_spot_types.max(AT_ANY_PRICE),
        CapacityType::OnDemand | CapacityType::Reserved => AT_ANY_PRICE,
    };
    let mut wanted = WantedValues::of(input, launch);
    for (place, (name, price)) in types.into_iter().enumerate() {
        let needed = wanted.brings(input, launch, name);
        let dear = price.is_none_or(|price| u128::from(price) > ceiling);
        if dear && place >= free && !needed {
            let rule = format!("lists {name}, which is over the price ceiling");
            violations.push(violation(subject, rule));
        }
    }
}

/// Values that a pool's `minValues` ask for, and those listed so far.
struct WantedValues(BTreeMap<String, (usize, BTreeSet<String>)>);

impl WantedValues {
    fn of(input: &PlanInput<'_>, launch: &Launch) -> Self {
        let pool = input.view.pools().get(&launch.nodepool);
        let requirements = pool.map(|pool| pool.spec.template.spec.requirements.as_slice());
        let wanted = requirements.unwrap_or_default().iter().filter_map(|requirement| {
            let key = labels::stable_name(&requirement.key).to_owned();
            Some((key, (requirement.min_values? as usize, BTreeSet::new())))
        });
        Self(wanted.collect())
    }

    /// Whether a type has a value that is still wanted; it is listed from now on.
    fn brings(&mut self, input: &PlanInput<'_>, launch: &Launch, name: &str) -> bool {
        let kind = catalog_of(input, launch).iter().find(|kind| kind.name == name);
        let mut brings = false;
        for (key, (least, values)) in &mut self.0 {
            let offered = launch.offerings.iter().filter(|o| o.instance_type == name);
            let own: BTreeSet<String> = match key.as_str() {
                labels::INSTANCE_TYPE => BTreeSet::from([name.to_owned()]),
                labels::ZONE => offered.map(|offering| offering.zone.to_string()).collect(),
                labels::ZONE_ID => {
                    let sold = || kind.into_iter().flat_map(|kind| &kind.offerings);
                    let id = |zone: &str| sold().find(|o| o.zone == zone)?.zone_id.clone();
                    offered.filter_map(|offering| id(&offering.zone)).collect()
                }
                key => kind.and_then(|kind| kind.labels.get(key)).into_iter().cloned().collect(),
            };
            for value in own {
                let open = values.len() < *least;
                brings |= values.insert(value) && open;
            }
        }
        brings
    }
}

/// Whether the types of a launch hang on its pods' hard rules and the room they need, and on nothing
/// else.
fn is_plain(input: &PlanInput<'_>, launch: &Launch) -> bool {
    let Some(pool) = input.view.pools().get(&launch.nodepool) else { return false };
    let spec = &pool.spec.template.spec;
    let pods = launch.pods.iter().filter_map(|key| pod_of(input, key));
    pool.spec.limits.is_empty()
        && spec.requirements.iter().all(|requirement| requirement.min_values.is_none())
        && pods.into_iter().all(has_plain_rules)
}

fn has_plain_rules(pod: &Pod) -> bool {
    let affinity = &pod.spec.affinity;
    let near = affinity.pod_affinity.as_ref();
    let away = affinity.pod_anti_affinity.as_ref();
    let weighed = near.into_iter().chain(away).flat_map(|a| &a.preferred);
    let hard = near.into_iter().chain(away).flat_map(|a| &a.required);
    let spread = pod.spec.topology_spread_constraints.iter().map(|c| &c.topology_key);
    let terms = weighed.map(|term| &term.pod_affinity_term).chain(hard);
    let mut keys = terms.map(|term| &term.topology_key).chain(spread);
    affinity.node_affinity.as_ref().is_none_or(|affinity| affinity.preferred.is_empty())
        && keys.all(|key| matches!(labels::stable_name(key), labels::ZONE | labels::HOSTNAME))
}

/// Types above the cap are for pods that fit nothing smaller.
fn check_size(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    let catalog = catalog_of(input, launch);
    let listed =
        |kind: &&InstanceType| launch.offerings.iter().any(|o| o.instance_type == kind.name);
    let large = catalog.iter().filter(|kind| !is_small(input, kind));
    let Some(large) = large.into_iter().find(listed) else { return };
    let small = |kind: &&InstanceType| is_small(input, kind) && is_exotic(kind) == is_exotic(large);
    let small: Vec<&InstanceType> = catalog.iter().filter(small).collect();
    let needs_large = |pod: &ObjectKey| {
        let pod = std::slice::from_ref(pod);
        !small.iter().any(|kind| takes(input, number, launch, kind, pod))
    };
    if !launch.pods.iter().any(needs_large) {
        let rule = format!("lists {}, and smaller types would do", large.name);
        violations.push(violation(format!("launch {number}"), rule));
    }
}

pub(super) fn catalog_of<'a>(input: &PlanInput<'a>, launch: &Launch) -> &'a [InstanceType] {
    input.catalogs.get(&launch.nodeclass).map_or(&[], |catalog| &catalog.instance_types)
}

pub(super) fn is_small(input: &PlanInput<'_>, kind: &InstanceType) -> bool {
    kind.capacity.get(&ResourceName::Cpu) / 1000 <= i64::from(input.settings.max_node_vcpus)
}

pub(super) fn is_exotic(kind: &InstanceType) -> bool {
    let counts =
        ["karpenter.k8s.aws/instance-gpu-count", "karpenter.k8s.aws/instance-accelerator-count"];
    let has = |key: &&str| kind.labels.get(*key).is_some_and(|count| count != "0");
    counts.iter().any(has) || kind.name.contains(".metal")
}

/// Whether the launch as this type alone, in all its zones, would hold some pods.
pub(super) fn takes(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    kind: &InstanceType,
    pods: &[ObjectKey],
) -> bool {
    let mut labels = launch.labels.clone();
    let catalog = catalog_of(input, launch);
    labels.retain(|key, _| {
        key != labels::INSTANCE_TYPE && !catalog.iter().any(|kind| kind.labels.contains_key(key))
    });
    let offering = |zone: &String| LaunchOffering {
        instance_type: SmolStr::new(&kind.name),
        zone: SmolStr::new(zone),
        price_micro: None,
    };
    let offerings = launch.zones.iter().map(offering).collect();
    let alone =
        Launch { offerings, labels, pods: Vec::new(), requirements: Vec::new(), ..launch.clone() };
    let Ok(hosts) = hosts_of_launch(input, number, &alone) else { return false };
    let mut found = Vec::new();
    for host in &hosts {
        check_host(input, host, pods, &mut found);
    }
    found.is_empty()
}
