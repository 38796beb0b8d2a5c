//! The state of one planning run: what can be bought, what is there, what is planned so far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::NodePoolName;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::attach::AttachLimits;
use super::bin::Bin;
use super::daemon::daemons_of;
use super::dimension::{Amounts, Dimensions, fits};
use super::existing::{ExistingNode, existing_nodes};
use super::group::{Group, Pending, PendingGroup, collect};
use super::hosts::OpenHosts;
use super::market::{Market, Pool, Stock};
use super::meant::Meant;
use super::open_label::LabelUses;
use super::profile::Profiles;
use super::repack::ceiling::Ceiling;
use super::rounds::Opened;
use super::rules::{KeyIndex, Variant, note_uses};
use super::running::{repelling_shapes, running_terms};
use super::share::Leaning;
use super::steps::Steps;
use super::topology::{Part, Topology, terms_of};
use super::zones::Counts;
use super::{MinValuesPolicy, PlanInput, PlannerSettings};
use crate::view::View;

/// One planning run.
pub(super) struct Board<'a> {
    pub settings: &'a PlannerSettings,
    pub dimensions: Dimensions,
    pub market: Market<'a>,
    pub index: KeyIndex,
    pub topology: Topology,
    pub groups: Vec<Group>,
    pub existing: Vec<ExistingNode<'a>>,
    pub profiles: Profiles,
    pub bins: Vec<Bin>,
    /// Pods set aside for whose places on nodes in flight room is held.
    pub held: Vec<Meant>,
    /// What the exact path opens nodes from: offers that no other dominates.
    pub scope: FixedBitSet,
    pub refused: Vec<(ObjectKey, String)>,
    pub steps: Steps,
    pub hosts: OpenHosts,
    /// Shapes among the pods looked at.
    pub shapes: usize,
    /// By term: how many groups have it at their present step.
    pub owners: Vec<u32>,
    /// Nodes by zone, once zones were dealt to some.
    pub dealt: Option<Counts>,
    /// The most a launch may cost, where it replaces nodes.
    pub ceiling: Option<Ceiling>,
    pub opened: Opened,
    pub leaning: Leaning,
}

impl<'a> Board<'a> {
    pub(super) fn set(input: &PlanInput<'a>) -> Self {
        let limits = AttachLimits::of(input.view);
        let mut pending = collect(input, &limits, has_soft_taints(input.view));
        pending.put_off_selectors(input.view);
        let problems = std::mem::take(&mut pending.problems);
        let mut board = Self::for_stock(input, pending, &limits, Stock::Pods);
        board.market.problems.extend(problems);
        let turn = u64::try_from(input.now.as_second()).unwrap_or(0);
        board.steps = Steps::of(input.settings.max_exact_steps, turn);
        board
    }

    /// Plans no more nodes of some pools than these.
    pub(super) fn keep_below(&mut self, most: &BTreeMap<NodePoolName, usize>) {
        for pool in &mut self.market.pools {
            let Some(most) = most.get(&pool.name) else { continue };
            let most = i64::try_from(*most).unwrap_or(i64::MAX);
            pool.nodes_left = Some(pool.nodes_left.map_or(most, |left| left.min(most)));
            pool.is_cut = true;
        }
    }

    /// How many pods have no place yet.
    pub(super) fn left(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.left())).sum()
    }

    /// How many pods of a group have no place yet.
    pub(super) fn left_of(&self, group: usize) -> usize {
        self.groups.get(group).map_or(0, |group| group.left() as usize)
    }

    /// A board for these pods.
    pub(super) fn of(input: &PlanInput<'a>, pending: Pending) -> Self {
        Self::for_stock(input, pending, &AttachLimits::of(input.view), Stock::Pods)
    }

    /// A board for the nodes of a static pool.
    pub(super) fn for_pool(input: &PlanInput<'a>, pool: &NodePoolName) -> Self {
        let limits = AttachLimits::of(input.view);
        Self::for_stock(input, Pending::default(), &limits, Stock::Pool(pool))
    }

    fn for_stock(
        input: &PlanInput<'a>,
        pending: Pending,
        limits: &AttachLimits,
        stock: Stock<'_>,
    ) -> Self {
        let view = input.view;
        let daemons = daemons_of(view);
        let mut dimensions = Dimensions::new();
        let mut uses = LabelUses::new();
        for group in &pending.groups {
            dimensions.learn_all(&group.requests);
            for variant in &group.variants {
                note_uses(variant, &mut uses);
            }
        }
        for pool in view.pools().values() {
            for key in pool.spec.limits.keys().filter(|key| *key != "nodes") {
                dimensions.learn(&key.as_str().into());
            }
        }
        let market = Market::build(input, &dimensions, &daemons, &uses, limits, stock);
        let existing = existing_nodes(input, &dimensions, &daemons, limits);
        let variants = pending.groups.iter().flat_map(|group| &group.variants);
        let spoken = variants.flat_map(|variant| variant.rules.keys()).collect();
        let profiles = Profiles::of(&existing, &spoken);
        let mut board = Board {
            settings: input.settings,
            dimensions,
            market,
            index: KeyIndex::default(),
            topology: Topology::default(),
            groups: Vec::new(),
            existing,
            profiles,
            bins: Vec::new(),
            held: Vec::new(),
            scope: FixedBitSet::new(),
            refused: pending.refused.clone(),
            steps: Steps::default(),
            hosts: OpenHosts::default(),
            shapes: pending.groups.len(),
            owners: Vec::new(),
            dealt: None,
            ceiling: None,
            opened: Opened::default(),
            leaning: Leaning::default(),
        };
        board.learn_terms(view, &pending);
        board.make_groups(view, pending.groups);
        board.count_running(view, &pending.moving);
        board.find_universes(view);
        board
    }

    /// Interns every term of pending pods, and required anti-affinity of running ones.
    fn learn_terms(&mut self, view: &View, pending: &Pending) {
        for group in &pending.groups {
            for variant in &group.variants {
                for term in terms_of(view, &group.shape, variant) {
                    self.topology.intern(term);
                }
            }
        }
        for shape in repelling_shapes(view) {
            for term in running_terms(view, shape) {
                self.topology.intern(term);
            }
        }
    }

    fn make_groups(&mut self, view: &View, pending: Vec<PendingGroup>) {
        type Key =
            (Reverse<i32>, Amounts, Vec<crate::view::HostPort>, Vec<Variant>, String, Vec<usize>);
        let mut merged: BTreeMap<Key, Group> = BTreeMap::new();
        for PendingGroup { shape, requests, variants, pods } in pending {
            let matched = self.topology.matched_by(&shape);
            let selective =
                variants.iter().any(|variant| !terms_of(view, &shape, variant).is_empty());
            let namespace = if selective { shape.namespace.clone() } else { String::new() };
            let key = (
                Reverse(shape.priority),
                self.dimensions.dense(&requests),
                shape.ports.clone(),
                variants.clone(),
                namespace,
                matched.clone(),
            );
            let request = key.1.clone();
            let group = merged.entry(key).or_insert_with(|| Group {
                shape,
                pods: Vec::new(),
                placed: 0,
                request,
                variants,
                step: 0,
                possible: FixedBitSet::new(),
                offers: FixedBitSet::new(),
                part: Part { own: Vec::new(), matched },
            });
            group.pods.extend(pods);
        }
        self.groups = merged.into_values().collect();
        for group in &mut self.groups {
            group.pods.sort();
        }
        // Priority first; then who can use few nodes, so that none else takes their room; then size: large before
        // small packs best and reads best.
        let names = self.dimensions.names();
        self.groups.sort_by_cached_key(|group| {
            (
                Reverse(group.shape.priority),
                Reverse(super::group::asks_for_devices(names, &group.request)),
                Reverse(super::group::size(&group.request)),
                group.pods.first().cloned(),
            )
        });
        for group in 0..self.groups.len() {
            self.enter_step(view, group, 0);
        }
    }

    /// A group's priority.
    pub(super) fn priority(&self, group: usize) -> Option<i32> {
        self.groups.get(group).map(|group| group.shape.priority)
    }

    /// Works out what a group can have at a step of its relaxation.
    pub(super) fn enter_step(&mut self, view: &View, group: usize, step: usize) {
        let Some(entry) = self.groups.get(group) else { return };
        let Some(variant) = entry.variants.get(step) else { return };
        let own: BTreeSet<usize> = terms_of(view, &entry.shape, variant)
            .into_iter()
            .map(|term| self.topology.intern(term))
            .collect();
        let mut possible = variant.rules.offers(&self.market, &mut self.index);
        self.keep_fitting(&mut possible, &entry.request);
        let offers = self.worth_buying(&possible);
        self.owners.resize(self.topology.terms.len(), 0);
        if let Some(entry) = self.groups.get_mut(group) {
            let before = std::mem::replace(&mut entry.part.own, own.into_iter().collect());
            for term in &entry.part.own {
                self.owners.get_mut(*term).into_iter().for_each(|owners| *owners += 1);
            }
            for term in before {
                self.owners.get_mut(term).into_iter().for_each(|owners| *owners -= 1);
            }
            entry.step = step;
            entry.possible = possible;
            entry.offers = offers;
        }
    }

    /// Drops offers of kinds without room for `request`.
    pub(super) fn keep_fitting(&self, offers: &mut FixedBitSet, request: &[i64]) {
        let nothing = vec![0; self.dimensions.len()];
        for kind in self.market.kinds.iter().filter(|kind| !fits(request, &nothing, &kind.room)) {
            offers.remove_range(kind.offers.clone());
        }
    }

    /// Of what is possible: what EC2 has, then, each where something is left, what is not exotic,
    /// not larger than the cap, and of known price.
    pub(super) fn worth_buying(&self, possible: &FixedBitSet) -> FixedBitSet {
        let mut offers = possible.clone();
        offers.intersect_with(&self.market.available);
        self.prefer(&mut offers, &self.market.plain);
        self.prefer(&mut offers, &self.market.capped);
        self.prefer(&mut offers, &self.market.priced);
        offers
    }

    /// Keeps those that satisfy a preference, pool by pool, unless a pool has none, or too few values of what
    /// its `minValues` ask for: a launch lists the others then, and is planned as the cheapest.
    fn prefer(&self, offers: &mut FixedBitSet, wanted: &FixedBitSet) {
        let mut kept = FixedBitSet::with_capacity(offers.len());
        for pool in &self.market.pools {
            let mut all = offers.clone();
            all.intersect_with(&pool.bits);
            let mut good = all.clone();
            good.intersect_with(wanted);
            let all_are_needed = good.is_clear() || self.needs_more_values(pool, &good, &all);
            kept.union_with(if all_are_needed { &all } else { &good });
        }
        *offers = kept;
    }

    fn needs_more_values(&self, pool: &Pool, good: &FixedBitSet, all: &FixedBitSet) -> bool {
        self.settings.min_values_policy == MinValuesPolicy::Strict
            && self.missing_values(pool, good).is_some()
            && self.missing_values(pool, all).is_none()
    }
}

fn has_soft_taints(view: &View) -> bool {
    use drover_common::taint::TaintEffect::PreferNoSchedule;
    // For those nothing is bought.
    let ours = [labels::CANDIDATE_TAINT, labels::REBALANCE_TAINT];
    let pools = view.pools().values().flat_map(|pool| &pool.spec.template.spec.taints);
    let nodes = view.nodes().values().flat_map(|node| &node.spec.taints);
    pools
        .chain(nodes)
        .any(|taint| taint.effect == PreferNoSchedule && !ours.contains(&taint.key.as_str()))
}
