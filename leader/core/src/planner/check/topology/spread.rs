//! Hard spread constraints.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Pod, TopologySpreadConstraint};
use drover_common::labels;

use super::{Labels, Located, Picture, Place, selected};
use crate::planner::check::host::{selects_node, tolerates};
use crate::planner::check::{Violation, violation};

/// Which nodes a constraint counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sure {
    /// Those that it counts whatever they become.
    Certainly,
    /// Those that it may count.
    Possibly,
}

pub(super) fn check(located: &Located<'_>, picture: &Picture<'_>, violations: &mut Vec<Violation>) {
    let constraints = &located.pod.spec.topology_spread_constraints;
    let Some(own) = picture.place(located) else { return };
    for constraint in constraints.iter().filter(|c| c.when_unsatisfiable != "ScheduleAnyway") {
        let key = labels::stable_name(&constraint.topology_key);
        let Some(domain) = own.domain(key) else {
            let rule = format!("its node has no {key}, or one not decided, to spread over");
            violations.push(violation(&located.pod.metadata.name, rule));
            continue;
        };
        let here = count_in(picture, located.pod, constraint, domain);
        let least = least(picture, located.pod, constraint, key);
        let skew = i64::from(constraint.max_skew.max(1));
        if here - least > skew {
            let rule = format!("{here} pods in {key}={domain} against {least}, skew {skew}");
            violations.push(violation(&located.pod.metadata.name, rule));
        }
    }
}

/// Pods in a domain that were there before the last pod of this kind came at the latest: what runs,
/// and new pods under the same constraints. Others may come later.
fn count_in(
    picture: &Picture<'_>,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    domain: &str,
) -> i64 {
    let pods = picture.pods.iter().filter(|other| {
        (!other.new || alike(other.pod, pod))
            && matches(constraint, pod, other.pod)
            && picture.place(other).is_some_and(|place| {
                place.domain(&constraint.topology_key) == Some(domain)
                    && counts(place, pod, constraint, Sure::Certainly)
            })
    });
    i64::try_from(pods.count()).unwrap_or(i64::MAX)
}

/// The emptiest domain's count once all pods are there. A new host is always empty; a node that is
/// not decided yet may be in any of its domains.
fn least(
    picture: &Picture<'_>,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    key: &str,
) -> i64 {
    let domains: BTreeSet<&str> = picture
        .places
        .iter()
        .flat_map(|place| place.labels.get(key).into_iter().flatten().map(move |d| (place, d)))
        .filter(|(place, domain)| {
            let mut labels = place.labels.clone();
            labels.insert(key.to_owned(), BTreeSet::from([(*domain).clone()]));
            let (taints, node) = (place.taints.clone(), place.node.clone());
            let decided = Place { labels, taints, node };
            counts(&decided, pod, constraint, Sure::Possibly)
        })
        .map(|(_, domain)| domain.as_str())
        .collect();
    let too_few = constraint.min_domains.is_some_and(|least| (domains.len() as i64) < least.into());
    if key == labels::HOSTNAME || too_few {
        return 0;
    }
    let mut totals: BTreeMap<&str, i64> = domains.into_iter().map(|domain| (domain, 0)).collect();
    for other in picture.pods.iter().filter(|other| matches(constraint, pod, other.pod)) {
        let Some(place) = picture.place(other) else { continue };
        if counts(place, pod, constraint, Sure::Possibly)
            && let Some(total) = place.domain(key).and_then(|domain| totals.get_mut(domain))
        {
            *total += 1;
        }
    }
    totals.into_values().min().unwrap_or(0)
}

fn matches(constraint: &TopologySpreadConstraint, owner: &Pod, other: &Pod) -> bool {
    let same = |key: &String| {
        let mine = owner.metadata.labels.get(key);
        mine.is_none() || mine == other.metadata.labels.get(key)
    };
    !other.is_terminating()
        && other.metadata.namespace == owner.metadata.namespace
        && selected(constraint.label_selector.as_ref(), &other.metadata.labels)
        && constraint.match_label_keys.iter().all(same)
}

/// Whether the constraint counts the pods of a node.
fn counts(place: &Place, pod: &Pod, constraint: &TopologySpreadConstraint, sure: Sure) -> bool {
    let constraints = &pod.spec.topology_spread_constraints;
    let mut hard = constraints.iter().filter(|c| c.when_unsatisfiable != "ScheduleAnyway");
    if !hard.all(|c| place.labels.contains_key(labels::stable_name(&c.topology_key))) {
        return false;
    }
    let affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore") || {
        let mut each = every_reading(&place.labels);
        let fits = |labels: &BTreeMap<String, String>| {
            selects_node(pod, labels, place.node.as_ref()).is_ok()
        };
        match sure {
            Sure::Certainly => each.all(|labels| fits(&labels)),
            Sure::Possibly => each.any(|labels| fits(&labels)),
        }
    };
    let taints = constraint.node_taints_policy.as_deref() != Some("Honor")
        || tolerates(pod, &place.taints).is_ok();
    affinity && taints
}

/// What a node's labels may be: as many readings as the widest label has values.
fn every_reading(labels: &Labels) -> impl Iterator<Item = BTreeMap<String, String>> {
    let most = labels.values().map(BTreeSet::len).max().unwrap_or(1).max(1);
    (0..most).map(move |number| {
        labels
            .iter()
            .filter_map(|(key, values)| {
                let value = values.iter().nth(number.min(values.len().saturating_sub(1)))?;
                Some((key.clone(), value.clone()))
            })
            .collect()
    })
}

fn alike(a: &Pod, b: &Pod) -> bool {
    a.spec.topology_spread_constraints == b.spec.topology_spread_constraints
        && a.metadata.labels == b.metadata.labels
        && a.spec.node_selector == b.spec.node_selector
        && a.spec.affinity == b.spec.affinity
}
