//! Bounds on what pods may ask about each other: selectors of pods that wait, and preferences.

use super::group::Pending;
use super::topology::{Topology, terms_of};
use crate::view::{PodShape, View};

/// How often selectors of pods that wait may match shapes of pods that wait, in one plan.
const MOST_MATCHES: usize = 1_000_000;
/// A shape that so few selectors match is never put off for it.
const FEW_MATCHES: usize = 64;
/// Preferences of one sort that count of one pod: the heaviest.
const MOST_PREFERENCES: usize = 16;
/// Terms that the steps of relaxation of all shapes may have together.
const MOST_RELAXED: usize = 100_000;

impl Pending {
    /// Puts off shapes, lowest priority first, whose selectors match too many others: each match is
    /// kept and looked at for every pod.
    pub(super) fn put_off_selectors(&mut self, view: &View) {
        let mut topology = Topology::default();
        let mut matches = 0_usize;
        let mut kept = Vec::with_capacity(self.groups.len());
        for group in std::mem::take(&mut self.groups) {
            let own: Vec<_> = group
                .variants
                .iter()
                .flat_map(|variant| terms_of(view, &group.shape, variant))
                .collect();
            let matched = topology.matched_by(&group.shape).len();
            let few = own.is_empty() && matched <= FEW_MATCHES;
            if !few && matches.saturating_add(matched) > MOST_MATCHES {
                let reason = "it was not looked at: pods that wait have more selectors that match \
                              each other than a plan looks at; it is left to the next look";
                let pods = group.pods.into_iter();
                self.refused.extend(pods.map(|pod| (pod, reason.to_owned())));
                continue;
            }
            matches = matches.saturating_add(matched);
            for term in own {
                topology.intern(term);
            }
            kept.push(group);
        }
        self.groups = kept;
    }
}

/// How many preferences of all shapes are still looked at.
#[derive(Debug)]
pub(super) struct Preferences {
    left: usize,
    /// Pods whose preferences are not.
    pub passed_over: usize,
}

impl Default for Preferences {
    fn default() -> Self {
        Self { left: MOST_RELAXED, passed_over: 0 }
    }
}

impl Preferences {
    /// How many of each sort count for pods of a shape.
    pub(super) fn of(&mut self, shape: &PodShape, pods: usize) -> usize {
        let affinity = &shape.affinity;
        let sorts = [
            affinity.pod_affinity.as_ref().map_or(0, |a| a.preferred.len()),
            affinity.pod_anti_affinity.as_ref().map_or(0, |a| a.preferred.len()),
            affinity.node_affinity.as_ref().map_or(0, |a| a.preferred.len()),
            shape.spread.iter().filter(|s| s.when_unsatisfiable == "ScheduleAnyway").count(),
        ];
        let all: usize = sorts.iter().map(|count| count.min(&MOST_PREFERENCES)).sum();
        // Each step has those that are not dropped yet.
        let Some(left) = self.left.checked_sub(all * (all + 1) / 2) else {
            self.passed_over += pods;
            return 0;
        };
        self.left = left;
        MOST_PREFERENCES
    }

    /// What is to be told of it.
    pub(super) fn problem(&self) -> Option<String> {
        (self.passed_over > 0).then(|| {
            format!(
                "preferences of {} pods are passed over: there are more of them than a plan looks at",
                self.passed_over
            )
        })
    }
}
