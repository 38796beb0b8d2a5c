//! Pods that wait, by what the bound can tell apart, and classes of those that may use the same
//! offerings.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{LabelSelector, Pod};
use drover_common::labels;

use super::Amounts;
use super::supply::{Offer, request_amounts};
use crate::workload::Workload;

/// Equal pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Demand {
    /// What one takes.
    pub(super) each: Amounts,
    pub(super) count: i64,
    pub(super) selector: BTreeMap<String, String>,
    /// Skew of a spread over zones that counts these pods and no others.
    pub(super) zone_skew: Option<i64>,
    /// The anti-affinity between hosts that they share: one of them a node.
    pub(super) exclusive: Option<usize>,
    /// Number of the class.
    pub(super) class: usize,
}

/// Pods that wait, merged.
pub(super) fn demands(workload: &Workload, offers: &[Offer<'_>]) -> Vec<Demand> {
    let pods: Vec<&Pod> = workload.view.pods().values().map(|entry| entry.pod.as_ref()).collect();
    let mut matching: BTreeMap<&LabelSelector, i64> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_unschedulable()) {
        for constraint in &pod.spec.topology_spread_constraints {
            if let Some(selector) = &constraint.label_selector {
                matching.entry(selector).or_insert(-1);
            }
        }
    }
    for (selector, count) in &mut matching {
        let selects = |pod: &&&Pod| selects(selector, pod);
        *count = i64::try_from(pods.iter().filter(selects).count()).unwrap_or(i64::MAX);
    }
    let mut exclusives: BTreeMap<&LabelSelector, usize> = BTreeMap::new();
    type Key<'p> =
        (Amounts, &'p BTreeMap<String, String>, Option<(&'p LabelSelector, i64)>, Option<usize>);
    let mut merged: BTreeMap<Key<'_>, i64> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_unschedulable()) {
        let spread = zone_spread(pod);
        let exclusive = exclusive(pod).map(|selector| {
            let next = exclusives.len();
            *exclusives.entry(selector).or_insert(next)
        });
        let each = request_amounts(&pod.requests());
        *merged.entry((each, &pod.spec.node_selector, spread, exclusive)).or_default() += 1;
    }
    let zones = offers.iter().map(|offer| offer.zone).collect::<BTreeSet<_>>().len();
    let of = |((each, selector, spread, exclusive), count): (Key<'_>, i64)| Demand {
        each,
        count,
        selector: selector.clone(),
        // Others that the spread counts may even out what these pods leave uneven.
        zone_skew: spread
            .filter(|(selector, _)| zones > 1 && matching.get(selector) == Some(&count))
            .map(|(_, skew)| skew),
        exclusive,
        class: 0,
    };
    merged.into_iter().map(of).collect()
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    selector.match_labels.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
}

/// The selector and skew of a hard spread over zones that the pod itself counts for.
fn zone_spread(pod: &Pod) -> Option<(&LabelSelector, i64)> {
    let constraint = pod
        .spec
        .topology_spread_constraints
        .iter()
        .find(|c| c.topology_key == labels::ZONE && c.when_unsatisfiable == "DoNotSchedule")?;
    let selector = constraint.label_selector.as_ref()?;
    selects(selector, pod).then_some((selector, i64::from(constraint.max_skew)))
}

/// The selector of a hard anti-affinity between hosts that the pod itself falls under.
fn exclusive(pod: &Pod) -> Option<&LabelSelector> {
    let terms = &pod.spec.affinity.pod_anti_affinity.as_ref()?.required;
    let term = terms.iter().find(|term| term.topology_key == labels::HOSTNAME)?;
    term.label_selector.as_ref().filter(|selector| selects(selector, pod))
}

/// Pins what a spread is sure to put into each zone: with `n` pods over `z` zones and skew `s`, the
/// emptiest zone has at least `(n - (z - 1) s) / z`.
pub(super) fn split_by_zone(demands: Vec<Demand>, offers: &[Offer<'_>]) -> Vec<Demand> {
    let mut split = Vec::new();
    for demand in demands {
        let Some(skew) = demand.zone_skew.filter(|_| !demand.selector.contains_key(labels::ZONE))
        else {
            split.push(demand);
            continue;
        };
        let zones: BTreeSet<&str> =
            offers.iter().filter(|o| admits(&demand, o)).map(|offer| offer.zone).collect();
        let count = i64::try_from(zones.len()).unwrap_or(1).max(1);
        let sure = (demand.count - (count - 1) * skew).max(0).div_euclid(count);
        for zone in zones.iter().filter(|_| sure > 0) {
            let mut pinned = demand.clone();
            pinned.count = sure;
            pinned.selector.insert(labels::ZONE.to_owned(), (*zone).to_owned());
            split.push(pinned);
        }
        split.push(Demand { count: demand.count - sure * count, ..demand });
    }
    split.retain(|demand| demand.count > 0);
    split
}

fn admits(demand: &Demand, offer: &Offer<'_>) -> bool {
    demand.each.iter().zip(&offer.room).all(|(each, room)| each <= room)
        && demand.selector.iter().all(|(key, value)| match key.as_str() {
            labels::ZONE => offer.zone == value,
            labels::CAPACITY_TYPE => offer.capacity_type.as_str() == value,
            key => offer.instance_type.labels.get(key) == Some(value),
        })
}

/// The offers of each class, and demands with their class. A class is made of what labels and the
/// planner's rules on types allow; offers that are too small for some of its pods stay in.
pub(super) fn classes(
    mut demands: Vec<Demand>,
    offers: &[Offer<'_>],
    max_vcpus: u32,
) -> (Vec<Vec<bool>>, Vec<Demand>) {
    let mut numbers: BTreeMap<Vec<bool>, usize> = BTreeMap::new();
    for demand in &mut demands {
        let fitting: Vec<&Offer<'_>> = offers.iter().filter(|o| admits(demand, o)).collect();
        let plain = fitting.iter().any(|offer| !offer.exotic);
        let small = |offer: &Offer<'_>| offer.vcpus <= i64::from(max_vcpus);
        let capped = fitting.iter().any(|offer| small(offer) && !(plain && offer.exotic));
        let any_size = Demand { each: [0, 0, 0, demand.each[3].min(1)], ..demand.clone() };
        let set: Vec<bool> = offers
            .iter()
            .map(|offer| {
                admits(&any_size, offer) && !(plain && offer.exotic) && (!capped || small(offer))
            })
            .collect();
        let next = numbers.len();
        demand.class = *numbers.entry(set).or_insert(next);
    }
    let mut classes = vec![Vec::new(); numbers.len()];
    for (set, number) in numbers {
        if let Some(slot) = classes.get_mut(number) {
            *slot = set;
        }
    }
    (classes, demands)
}
