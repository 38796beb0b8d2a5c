//! Reasons that lie in places: what EC2 lacks where, and which domains other pods leave.

use std::collections::BTreeSet;

use drover_common::labels;
use drover_common::resources::{ResourceName, format_amount};
use fixedbitset::FixedBitSet;
use jiff::Timestamp;

use super::list;
use crate::planner::bin::NEW_HOST;
use crate::planner::board::Board;
use crate::planner::group::Group;
use crate::planner::market::Pool;
use crate::planner::topology::{TermKind, Tracked};

impl Board<'_> {
    /// What would do is out of stock: what is needed where, what is offered there, and until when
    /// it is left alone.
    pub(super) fn shortage_reason(
        &self,
        group: &Group,
        pool: &Pool,
        possible: &FixedBitSet,
    ) -> String {
        let mut offers: Vec<usize> = possible.ones().collect();
        offers.sort_by_key(|offer| self.market.rank(*offer));
        let mut types: Vec<String> = Vec::new();
        for kind in offers.iter().filter_map(|offer| self.market.kind_of(*offer)) {
            if !types.contains(&kind.instance_type.name) {
                types.push(kind.instance_type.name.clone());
            }
        }
        let until = offers.iter().filter_map(|offer| self.market.offers.get(*offer)?.until).min();
        let narrowed = |key: &str| {
            let values = |offers: &mut dyn Iterator<Item = usize>| -> BTreeSet<String> {
                offers.filter_map(|o| self.market.label(o, key).map(str::to_owned)).collect()
            };
            let wanted = values(&mut offers.iter().copied());
            let all = values(&mut pool.offers.clone());
            (wanted.len() < all.len()).then(|| wanted.into_iter().collect::<Vec<_>>())
        };
        let zones = narrowed(labels::ZONE);
        let billing = narrowed(labels::CAPACITY_TYPE);
        let mut words = format!("needs {}", self.needs(group));
        if let Some(billing) = billing {
            words.push_str(&format!(" as {}", list(&billing)));
        }
        let place = if zones.is_some() { "offered there" } else { "offered" };
        if let Some(zones) = zones {
            words.push_str(&format!(" in {}", list(&zones)));
        }
        let until = until.map_or_else(String::new, |until| format!(" until {}", clock(until)));
        format!("{words}; {place}: {}, unavailable{until}", list(&types))
    }

    /// A group's request in words: what is special about it, else its cpu and memory.
    fn needs(&self, group: &Group) -> String {
        use ResourceName::{Cpu, EphemeralStorage, Memory, Pods};
        let all: Vec<(&ResourceName, i64)> = self
            .dimensions
            .names()
            .iter()
            .zip(group.request.iter().copied())
            .filter(|(name, amount)| *amount > 0 && **name != Pods)
            .collect();
        let common = |name: &ResourceName| matches!(name, Cpu | Memory | EphemeralStorage);
        let special = all.iter().any(|(name, _)| !common(name));
        let told = all.iter().filter(|(name, _)| !special || !common(name));
        let words: Vec<String> =
            told.map(|(name, amount)| format!("{} {name}", format_amount(name, *amount))).collect();
        if words.is_empty() { "a node".to_owned() } else { words.join(", ") }
    }

    /// Which term leaves no domain that the pool's offers reach.
    pub(super) fn topology_reason(&mut self, group: &Group, offers: &FixedBitSet) -> String {
        for (index, own) in group
            .part
            .own
            .iter()
            .map(|index| (*index, true))
            .chain(group.part.matched.iter().map(|index| (*index, false)))
        {
            let Some(tracked) = self.topology.terms.get(index).cloned() else { continue };
            let key = tracked.term.key.clone();
            let reach: Vec<String> = self
                .index
                .values(&self.market, &key)
                .iter()
                .filter(|(_, bits)| !bits.is_disjoint(offers))
                .map(|(value, _)| value.clone())
                .collect();
            let host = key == labels::HOSTNAME;
            let shut = if host {
                !self.topology.allows(&group.part, &key, Some("new"))
            } else {
                reach.iter().all(|value| !self.topology.allows(&group.part, &key, Some(value)))
            };
            if shut && let Some(words) = term_reason(&tracked, own, &reach) {
                return words;
            }
        }
        if group.part.own.is_empty() && group.part.matched.is_empty() {
            return "a node of it would hold the pod, but none could be planned".to_owned();
        }
        "its spread, affinity and anti-affinity rules together leave no domain that its types reach"
            .to_owned()
    }
}

/// Why a term shuts every domain in reach; `own` is whether the pod itself has it.
fn term_reason(tracked: &Tracked, own: bool, reach: &[String]) -> Option<String> {
    let key = &tracked.term.key;
    let there = if reach.is_empty() {
        format!("its nodes have no label {key}")
    } else {
        format!("its types are offered in {}", list(reach))
    };
    let with = |wanted: &dyn Fn(i64) -> bool| -> Vec<String> {
        let counts = tracked.matching.iter().filter(|(_, count)| wanted(**count));
        counts.map(|(domain, _)| domain.clone()).collect()
    };
    Some(match (&tracked.term.kind, own) {
        (TermKind::Spread { max_skew, min_domains, .. }, true) => {
            if let Some(least) = min_domains
                && (tracked.universe.len() as u64) < least.unsigned_abs()
            {
                return Some(format!(
                    "spread over {key} wants {least} domains (minDomains) and there are {}; with \
                     maxSkew {max_skew} each is full",
                    tracked.universe.len()
                ));
            }
            if tracked.universe.is_empty() && reach.is_empty() {
                return Some(format!("cannot spread over {key}: {there}"));
            }
            let least = tracked.least(*min_domains);
            let count = |domain: &String| tracked.matching.get(domain).copied().unwrap_or(0);
            let emptiest: Vec<String> =
                tracked.universe.iter().filter(|domain| count(domain) == least).cloned().collect();
            format!(
                "spread over {key} with maxSkew {max_skew} asks for a pod in {} first ({least} there); {there}",
                list(&emptiest)
            )
        }
        (TermKind::Affinity, true) => match with(&|count| count > 0).as_slice() {
            [] if reach.is_empty() && key != labels::HOSTNAME => format!(
                "pod affinity over {key}: {there}, and no pod that it wants to join is on a node with it"
            ),
            [] => {
                format!("pod affinity over {key}: no pod that it wants to join runs or is planned")
            }
            hosts if key == labels::HOSTNAME => {
                let there = |host: &&String| !host.starts_with(NEW_HOST);
                let known: Vec<String> = hosts.iter().filter(there).cloned().collect();
                let planned =
                    (known.len() < hosts.len()).then(|| "nodes that are planned".to_owned());
                let places: Vec<String> = known.into_iter().chain(planned).collect();
                let places = list(&places);
                format!(
                    "pod affinity over {key}: the pods it wants to join are on {places}, which can't take it"
                )
            }
            some => format!(
                "pod affinity over {key}: the pods it wants to join are in {}; {there}",
                list(some)
            ),
        },
        (TermKind::AntiAffinity, true) => format!(
            "pod anti-affinity over {key}: there are pods it avoids in {}; {there}",
            list(&with(&|count| count > 0))
        ),
        (TermKind::AntiAffinity, false) => {
            let owners = tracked.owning.iter().filter(|(_, count)| **count > 0);
            let owners: Vec<String> = owners.map(|(domain, _)| domain.clone()).collect();
            format!(
                "pods in {} keep it away from their {key} (anti-affinity); {there}",
                list(&owners)
            )
        }
        _ => return None,
    })
}

/// A time of day, as one reads it off a clock.
fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M UTC").to_string()
}
