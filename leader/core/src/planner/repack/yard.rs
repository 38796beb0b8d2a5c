//! The state of one repack: the planner's board with every movable pod as part of a group, and what
//! each node holds.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::NodeName;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::candidate::{Contents, Judged};
use super::economy;
use super::kinds::Kinds;
use super::shut::Shut;
use super::{LeftAlone, LeftKind, RepackInput};
use crate::planner::attach::AttachLimits;
use crate::planner::board::Board;
use crate::planner::group::{Group, collect};
use crate::planner::profile::Seen;
use crate::planner::reserved::Slots;
use crate::planner::topology::Topology;
use crate::planner::zones::Counts;
use crate::planner::{PlacementTarget, PlanInput};
use crate::view::{HostPort, View};

/// A node as something to keep or to take down.
#[derive(Clone, Debug, Default)]
pub(super) struct Lot<'a> {
    /// Whether it may be taken down.
    pub candidate: bool,
    /// Whether it may take moved pods at all.
    pub takes_moves: bool,
    pub spot: bool,
    /// Micro-dollars an hour.
    pub price: u64,
    pub eviction_cost: i64,
    /// What its pods would cost on new nodes.
    pub value: u64,
    /// Groups and their pods.
    pub contents: Vec<(usize, Vec<&'a ObjectKey>)>,
}

impl<'a> Lot<'a> {
    fn hold(&mut self, group: usize, pod: &'a ObjectKey) {
        match self.contents.binary_search_by_key(&group, |(held, _)| *held) {
            Ok(at) => {
                self.contents.iter_mut().skip(at).take(1).for_each(|(_, pods)| pods.push(pod))
            }
            Err(at) => self.contents.insert(at, (group, vec![pod])),
        }
    }

    pub(super) fn pods(&self) -> usize {
        self.contents.iter().map(|(_, pods)| pods.len()).sum()
    }

    /// Whether its contents are worth this share of its price.
    pub(super) fn is_worth(&self, percent: u32) -> bool {
        let value = u128::from(self.value) * 100;
        value >= u128::from(self.price) * u128::from(percent)
    }
}

/// How every attempt begins.
#[derive(Default)]
struct Start<'a> {
    /// Use and ports of each place.
    places: Vec<(Vec<i64>, Vec<HostPort>)>,
    limits: Limits<'a>,
    /// Terms with the counts of what runs.
    topology: Topology,
}

/// What is left to buy from.
#[derive(Clone, Default)]
pub(super) struct Limits<'a> {
    /// What limits leave of each pool.
    pub pools: Vec<(Vec<Option<i64>>, Option<i64>)>,
    /// What room reservations have.
    pub slots: Slots<'a>,
    /// Zones that nodes were dealt to.
    pub dealt: Option<Counts>,
}

/// One repack.
pub(super) struct Yard<'a> {
    pub input: &'a RepackInput<'a>,
    pub board: Board<'a>,
    /// Terms with the counts of what runs: what a batch alone meets, or one that follows all before it. The
    /// board's own counts have all batches so far in them.
    pub alone: Topology,
    /// By place on the board.
    pub lots: Vec<Lot<'a>>,
    /// Candidates, the first to go first.
    pub order: Vec<usize>,
    /// Each place's position in that order.
    pub rank: Vec<usize>,
    /// Places for moved pods, the best first.
    pub targets: Vec<usize>,
    /// Nodes that turned out to stay, and take pods from then on.
    pub stayed: Vec<usize>,
    /// Which of those have no room for a pod of a group.
    pub shut: Shut,
    /// By group: whether moving such pods concerns no others.
    pub plain: Vec<bool>,
    /// By group: the topology keys that decide where such pods may go.
    pub keys: Vec<TopologyKeys>,
    /// By place: numbers for its domains of all keys but the host's name.
    pub districts: Vec<usize>,
    /// By district: whether one more of the pods being placed may go there, and in which round that was found.
    pub told: Vec<(u64, bool)>,
    /// Counts groups to place, and pods placed.
    pub round: u64,
    pub allowed: BTreeMap<drover_common::id::NodePoolName, u32>,
    /// Whether what is tried comes after everything before it.
    pub following: bool,
    /// Targets that go after all, or are tried to.
    pub closed: FixedBitSet,
    /// Nodes that turned out not to be movable.
    pub refused: Vec<LeftAlone>,
    classes: Vec<usize>,
    admits: Vec<Vec<Option<bool>>>,
    start: Start<'a>,
}

impl<'a> Yard<'a> {
    pub(super) fn set(
        input: &'a RepackInput<'a>,
        plan: &PlanInput<'a>,
        judged: &Judged<'a>,
    ) -> Self {
        let limits = AttachLimits::of(plan.view);
        let mut pending = collect(plan, &limits, false);
        let (mut kinds, refused) = Kinds::of(input, judged, &limits);
        pending.groups.append(&mut kinds.groups);
        let mut board = Board::of(plan, pending);
        kinds.find_groups(&mut board);
        let lots = lots(input, judged, &board, &mut kinds);
        let mut yard = Self {
            input,
            alone: Topology::default(),
            order: Vec::new(),
            rank: vec![usize::MAX; lots.len()],
            targets: Vec::new(),
            stayed: Vec::new(),
            shut: Shut::of(board.groups.len()),
            plain: Vec::new(),
            keys: Vec::new(),
            districts: Vec::new(),
            told: Vec::new(),
            round: 0,
            allowed: judged.allowed.clone(),
            following: false,
            closed: FixedBitSet::with_capacity(lots.len()),
            refused,
            classes: Vec::new(),
            admits: Vec::new(),
            start: Start::default(),
            lots,
            board,
        };
        yard.seat_waiting(plan);
        yard.sort_places();
        yard
    }

    /// Gives pods that wait, and those of leaving nodes, their places: they come first.
    fn seat_waiting(&mut self, plan: &PlanInput<'a>) {
        for group in 0..self.board.groups.len() {
            let Some(entry) = self.board.groups.get(group) else { continue };
            let last = entry.variants.len().saturating_sub(1);
            if entry.left() > 0 && entry.step < last {
                self.board.enter_step(plan.view, group, last);
            }
        }
        // Whoever can't sit yet looks for a place like the others.
        drop(self.board.keep_meant(plan.view));
        for group in 0..self.board.groups.len() {
            if self.board.groups.get(group).is_some_and(|group| group.left() > 0) {
                self.board.place_on_nodes(group);
            }
        }
        let rooms = self.rooms(plan);
        for group in &mut self.board.groups {
            group.pods.clear();
            group.placed = 0;
        }
        for (place, lot) in self.board.existing.iter_mut().zip(&mut self.lots) {
            // Room that is to be free goes where the node's pods go.
            let kept: Option<Vec<_>> =
                place.pods.iter().map(|pod| rooms.get(pod).copied()).collect();
            if let PlacementTarget::Node(node) = &place.target
                && lot.candidate
                && !place.pods.is_empty()
                && kept.is_none()
            {
                lot.candidate = false;
                let reason = "pods that wait are to come to it".to_owned();
                let node = node.clone();
                self.refused.push(LeftAlone { node, reason, kind: LeftKind::Waits });
            }
            place.pods.clear();
            if lot.candidate {
                kept.into_iter().flatten().for_each(|(group, pod)| lot.hold(group, pod));
            }
        }
        self.keep_preferences(plan.view);
        self.alone = self.board.topology.clone();
    }

    /// Pods that stand for room alone, with their groups.
    fn rooms(&self, plan: &PlanInput<'a>) -> BTreeMap<&'a ObjectKey, (usize, &'a ObjectKey)> {
        let rooms = plan.virtual_pods.iter().filter(|pods| pods.keep_room);
        let keys: BTreeMap<&ObjectKey, &'a ObjectKey> =
            rooms.flat_map(|pods| &pods.keys).map(|key| (key, key)).collect();
        if keys.is_empty() {
            return BTreeMap::new();
        }
        let groups = self.board.groups.iter().enumerate();
        let pods = groups.flat_map(|(number, group)| group.pods.iter().map(move |p| (number, p)));
        pods.filter_map(|(number, pod)| keys.get(pod).map(|key| (*key, (number, *key)))).collect()
    }

    /// Preferences that are met now are rules for pods that are moved, as they were when their nodes were
    /// bought: what one buys the other would take down again. What is not met holds nobody where he is.
    fn keep_preferences(&mut self, view: &View) {
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.board.groups.len()];
        for (place, lot) in self.lots.iter().enumerate() {
            for (group, _) in &lot.contents {
                if let Some(places) = places.get_mut(*group) {
                    places.push(place);
                }
            }
        }
        for (group, places) in places.iter().enumerate() {
            let entry = self.board.groups.get(group);
            let Some(last) = entry.and_then(|entry| entry.variants.len().checked_sub(1)) else {
                continue;
            };
            // What is left at the last step is no preference.
            self.board.enter_step(view, group, last);
            let entry = self.board.groups.get(group);
            let hard = entry.map(|entry| entry.part.own.clone()).unwrap_or_default();
            for step in 0..last {
                self.board.enter_step(view, group, step);
                if self.is_met(group, places, &hard) {
                    break;
                }
                self.board.enter_step(view, group, last);
            }
        }
    }

    /// Whether a group's pods are where its rules want them; those of its terms that are `hard` are not asked.
    fn is_met(&self, group: usize, places: &[usize], hard: &[usize]) -> bool {
        let board = &self.board;
        let Some(entry) = board.groups.get(group) else { return false };
        let Some(variant) = entry.variant() else { return false };
        let admitted = |place: &usize| {
            board.existing.get(*place).is_some_and(|place| place.admits(&variant.rules))
        };
        let mut soft = entry.part.own.iter().filter(|term| !hard.contains(term));
        soft.all(|term| {
            let itself = entry.part.matched.contains(term);
            board.topology.terms.get(*term).is_some_and(|tracked| tracked.is_kept_now(itself))
        }) && places.iter().all(admitted)
    }

    fn sort_places(&mut self) {
        let board = &self.board;
        self.plain = board
            .groups
            .iter()
            .map(|group| group.is_plain() && group.shape.volumes.is_empty())
            .collect();
        self.keys = board.groups.iter().map(|group| TopologyKeys::of(board, group)).collect();
        self.districts = districts(board, &self.keys);
        self.told = vec![(0, false); self.districts.iter().max().map_or(0, |most| most + 1)];
        self.classes = classes(board);
        let kinds = self.classes.iter().max().map_or(0, |most| most + 1);
        self.admits = vec![vec![None; kinds]; board.groups.len()];
        let places = board.existing.iter();
        self.start = Start {
            places: places.map(|p| (p.used.clone(), p.ports.clone())).collect(),
            limits: self.limits(),
            topology: self.alone.clone(),
        };
        economy::appraise(&self.board, &mut self.lots);
        let lots = &self.lots;
        let mut order: Vec<usize> =
            (0..lots.len()).filter(|place| lots.get(*place).is_some_and(|l| l.candidate)).collect();
        // Price by eviction cost, descending, in integers; the cost of one more pod keeps nodes with
        // next to nothing on them comparable.
        order.sort_by_cached_key(|place| {
            let (price, cost) = lots.get(*place).map_or((0, 0), |l| (l.price, l.eviction_cost));
            let cost = u128::try_from(1_000 + cost).unwrap_or(1);
            (std::cmp::Reverse(u128::from(price) * 1_000_000 / cost.max(1)), *place)
        });
        for (position, place) in order.iter().enumerate() {
            if let Some(rank) = self.rank.get_mut(*place) {
                *rank = position;
            }
        }
        self.order = order;
    }

    /// Begins anew, with the nodes as targets whose contents are worth the threshold.
    pub(super) fn enter(&mut self, threshold: u32) {
        for (place, start) in self.board.existing.iter_mut().zip(&self.start.places) {
            place.used.clone_from(&start.0);
            place.ports.clone_from(&start.1);
        }
        self.set_limits(self.start.limits.clone());
        self.board.topology.clone_from(&self.start.topology);
        self.alone.clone_from(&self.start.topology);
        self.stayed.clear();
        self.shut.open_all();
        let staying = (0..self.lots.len()).filter(|place| {
            self.lots.get(*place).is_some_and(|lot| lot.takes_moves && !lot.candidate)
        });
        let keepers = self.order.iter().rev().copied().filter(|place| {
            self.lots.get(*place).is_some_and(|lot| lot.takes_moves && lot.is_worth(threshold))
        });
        self.targets = staying.chain(keepers).collect();
    }

    pub(super) fn limits(&self) -> Limits<'a> {
        let pools = self.board.market.pools.iter();
        Limits {
            pools: pools.map(|pool| (pool.left.clone(), pool.nodes_left)).collect(),
            slots: self.board.market.slots.clone(),
            dealt: self.board.dealt.clone(),
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits<'a>) {
        for (pool, (left, nodes_left)) in self.board.market.pools.iter_mut().zip(limits.pools) {
            pool.left = left;
            pool.nodes_left = nodes_left;
        }
        self.board.market.slots = limits.slots;
        self.board.dealt = limits.dealt;
    }

    /// Whether labels and taints of a place let a group in.
    pub(super) fn admits(&mut self, group: usize, place: usize) -> bool {
        let Some(class) = self.classes.get(place).copied() else { return false };
        let Some(known) = self.admits.get_mut(group).and_then(|row| row.get_mut(class)) else {
            return false;
        };
        if let Some(known) = known {
            return *known;
        }
        let rules = self.board.groups.get(group).and_then(|group| group.variant());
        let admits = rules
            .zip(self.board.existing.get(place))
            .is_some_and(|(variant, place)| place.admits(&variant.rules));
        *known = Some(admits);
        admits
    }

    pub(super) fn node_name(&self, place: usize) -> Option<NodeName> {
        match &self.board.existing.get(place)?.target {
            PlacementTarget::Node(name) => Some(name.clone()),
            PlacementTarget::Claim(_) => None,
        }
    }
}

fn lots<'a>(
    input: &RepackInput<'_>,
    judged: &Judged<'a>,
    board: &Board<'_>,
    kinds: &mut Kinds,
) -> Vec<Lot<'a>> {
    let places = board.existing.iter();
    places
        .map(|place| match &place.target {
            PlacementTarget::Node(name) => lot(input, judged, kinds, name),
            PlacementTarget::Claim(_) => Lot::default(),
        })
        .collect()
}

fn lot<'a>(
    input: &RepackInput<'_>,
    judged: &Judged<'a>,
    kinds: &Kinds,
    name: &NodeName,
) -> Lot<'a> {
    let managed = input.nodes.get(name);
    let settled = managed.is_none_or(|managed| {
        managed.initialized_at.is_some() && (managed.quiet || input.settings.skip_waits)
    });
    let empty = judged.empty.binary_search(name).is_ok();
    let mut lot = Lot {
        takes_moves: settled && !empty,
        spot: managed.is_some_and(|managed| managed.capacity_type == CapacityType::Spot),
        price: managed.map_or(0, |managed| managed.price_micro),
        ..Lot::default()
    };
    let Some(Contents { pods, eviction_cost }) = judged.movable.get(name) else { return lot };
    lot.eviction_cost = *eviction_cost;
    lot.candidate = !kinds.unmovable.contains(name);
    let mut contents: BTreeMap<usize, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, shape) in pods {
        match kinds.group(key, *shape) {
            Some(group) => contents.entry(group).or_default().push(*key),
            None => lot.candidate = false,
        }
    }
    lot.contents = contents.into_iter().collect();
    lot
}

/// The topology keys that decide for pods of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct TopologyKeys {
    /// The host's name, if it does.
    pub host: Option<String>,
    pub shared: Vec<String>,
}

impl TopologyKeys {
    fn of(board: &Board<'_>, group: &Group) -> Self {
        let mut terms = group.part.own.iter().chain(&group.part.matched);
        let by_host = terms.any(|term| {
            let tracked = board.topology.terms.get(*term);
            tracked.is_some_and(|tracked| tracked.term.key == labels::HOSTNAME)
        });
        Self {
            host: by_host.then(|| labels::HOSTNAME.to_owned()),
            shared: board.topology.keys(&group.part),
        }
    }
}

/// Numbers places by their domains of the keys that they share with others.
fn districts(board: &Board<'_>, keys: &[TopologyKeys]) -> Vec<usize> {
    let keys: BTreeSet<&String> = keys.iter().flat_map(|keys| &keys.shared).collect();
    let mut known = BTreeMap::new();
    let domains = board.existing.iter().map(|place| {
        let domains: Vec<_> = keys.iter().map(|key| place.domain(key)).collect();
        let next = known.len();
        *known.entry(domains).or_insert(next)
    });
    domains.collect()
}

/// Numbers places by what rules can tell apart: labels that some rule speaks of, and taints.
fn classes(board: &Board<'_>) -> Vec<usize> {
    let keys: BTreeSet<&str> = board
        .groups
        .iter()
        .filter_map(|group| group.variant())
        .flat_map(|variant| {
            variant.rules.all.iter().chain(variant.rules.any.iter().flatten().flatten())
        })
        .map(|requirement| requirement.key.as_str())
        .collect();
    let mut known = BTreeMap::new();
    board
        .existing
        .iter()
        .map(|place| {
            let next = known.len();
            *known.entry(Seen::of(place, &keys)).or_insert(next)
        })
        .collect()
}
