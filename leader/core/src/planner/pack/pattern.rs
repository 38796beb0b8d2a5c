//! The best way to fill one node: which items, and how many of each.
//!
//! A knapsack in several resources. Cpu and memory are weighed against each other so that both run
//! out together (Lagrange multipliers, found by bisection and kept from search to search); by value
//! for that weight a few items are chosen, over which a bounded depth-first search looks for the
//! counts; what room is left is topped up.

use super::{Candidate, Item};
use crate::planner::dimension::{CPU, MEMORY, add_times, fits, times};

/// Items the depth-first search looks at.
const CHOICES: usize = 7;
/// Most nodes of that search.
const NODES: u32 = 600;
/// How far the weights lean to either side of the balance when items are chosen.
const LEAN: f64 = 0.1;
/// Halvings of the multiplier's step.
const HALVINGS: u32 = 5;
/// How often a search looks at each item.
pub(super) const LOOKS: u64 = HALVINGS as u64 + 3;

/// A way to fill one candidate.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub contents: Vec<(usize, u32)>,
    /// Value over price.
    pub score: f64,
}

impl Pattern {
    /// How often demand allows it.
    pub(super) fn times(&self, demand: &[u32]) -> u32 {
        let each = self
            .contents
            .iter()
            .map(|(item, count)| demand.get(*item).map_or(0, |left| left / (*count).max(1)));
        each.min().unwrap_or(0)
    }
}

/// An item that may go in, in shares of the node.
#[derive(Clone, Copy, Debug)]
struct Entry {
    item: usize,
    cpu: f64,
    memory: f64,
    other: f64,
    value: f64,
    /// Value for weight at the present multiplier.
    ratio: f64,
    weight: f64,
    /// Most of it: by demand, and by what a node may hold.
    most: u32,
}

/// Searches for patterns at given values.
pub(super) struct Search<'p> {
    items: &'p [Item],
    candidates: &'p [Candidate],
    values: &'p [f64],
    /// The weight of cpu against memory that suited a candidate last.
    mixes: Vec<f64>,
    entries: Vec<Entry>,
}

impl<'p> Search<'p> {
    pub(super) fn new(items: &'p [Item], candidates: &'p [Candidate], values: &'p [f64]) -> Self {
        let mixes = vec![0.5; candidates.len()];
        Self { items, candidates, values, mixes, entries: Vec::new() }
    }

    /// The best pattern found for what demand is left; `None` if nothing fits. Takes its work off
    /// `steps`.
    pub(super) fn pattern(
        &mut self,
        number: usize,
        demand: &[u32],
        steps: &mut u64,
    ) -> Option<Pattern> {
        let candidate = self.candidates.get(number)?;
        self.enter(candidate, demand);
        if self.entries.is_empty() {
            return None;
        }
        let looks = LOOKS * self.entries.len() as u64;
        let mix = balance(&mut self.entries, self.mixes.get(number).copied().unwrap_or(0.5));
        if let Some(known) = self.mixes.get_mut(number) {
            *known = mix;
        }
        let chosen = choose(&mut self.entries, mix);
        weigh(&mut self.entries, mix);
        let (choices, rest) = self.entries.split_at_mut(chosen);
        choices.sort_unstable_by(by_ratio);
        let mut depth = Depth {
            items: self.items,
            room: &candidate.room,
            choices,
            used: vec![0; candidate.room.len()],
            counts: vec![0; choices.len()],
            best: vec![0; choices.len()],
            best_value: -1.0,
            nodes: NODES,
        };
        depth.descend(0, 0.0, 1.0);
        *steps = steps.saturating_sub(looks + u64::from(NODES - depth.nodes) * 4);
        let mut fill = Fill {
            items: self.items,
            room: &candidate.room,
            used: vec![0; candidate.room.len()],
            contents: Vec::new(),
            value: 0.0,
        };
        let counts = std::mem::take(&mut depth.best);
        for (entry, count) in choices.iter().zip(counts) {
            fill.put(entry, count);
        }
        fill.top_up(choices, rest);
        fill.contents.sort_unstable();
        let price = candidate.price.max(1) as f64;
        (!fill.contents.is_empty())
            .then(|| Pattern { contents: fill.contents, score: fill.value.max(1e-9) / price })
    }

    /// Lists the items that may go into a candidate.
    fn enter(&mut self, candidate: &Candidate, demand: &[u32]) {
        self.entries.clear();
        let inverse: Vec<f64> =
            candidate.room.iter().map(|room| 1.0 / (*room).max(1) as f64).collect();
        for index in candidate.admits.ones() {
            let left = demand.get(index).copied().unwrap_or(0);
            let Some(item) = self.items.get(index).filter(|_| left > 0) else { continue };
            let share = |dimension: usize| {
                let request = item.request.get(dimension).copied().unwrap_or(0).max(0);
                request as f64 * inverse.get(dimension).copied().unwrap_or(0.0)
            };
            let other = (MEMORY + 1..item.request.len()).map(share).fold(0.0, f64::max);
            let (cpu, memory) = (share(CPU), share(MEMORY));
            if cpu > 1.0 || memory > 1.0 || other > 1.0 {
                continue;
            }
            self.entries.push(Entry {
                item: index,
                cpu,
                memory,
                other,
                value: self.values.get(index).copied().unwrap_or(0.0),
                ratio: 0.0,
                weight: 1.0,
                most: left.min(item.cap),
            });
        }
    }
}

/// Weighs cpu by `mix` and memory by the rest.
fn weigh(entries: &mut [Entry], mix: f64) {
    for entry in entries {
        let weight = mix * entry.cpu + (1.0 - mix) * entry.memory;
        entry.weight = weight.max(entry.other * 0.5).max(1e-9);
        entry.ratio = entry.value / entry.weight;
    }
}

fn by_ratio(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    b.ratio.total_cmp(&a.ratio).then(a.item.cmp(&b.item))
}

/// Moves the items to search over to the front, and says how many. Where both resources run out
/// together, items that lean to cpu and items that lean to memory are worth the same, and it takes
/// both kinds to fill a node: half are the best with a little more weight on one, half on the other.
fn choose(entries: &mut [Entry], mix: f64) -> usize {
    if entries.len() <= CHOICES {
        return entries.len();
    }
    let half = CHOICES / 2;
    weigh(entries, (mix + LEAN).min(1.0));
    entries.select_nth_unstable_by(half, by_ratio);
    let (_, others) = entries.split_at_mut(half);
    weigh(others, (mix - LEAN).max(0.0));
    others.select_nth_unstable_by(CHOICES - half, by_ratio);
    CHOICES
}

/// The mix at which cpu and memory of a node filled by ratio run out together.
fn balance(entries: &mut [Entry], known: f64) -> f64 {
    let mut mix = known;
    let mut step = 0.25;
    for _ in 0..HALVINGS {
        weigh(entries, mix);
        let (cpu, memory) = fractional(entries);
        // What runs out first is scarce and should weigh more.
        mix = if cpu < memory { mix + step } else { mix - step };
        mix = mix.clamp(0.02, 0.98);
        step /= 2.0;
    }
    mix
}

/// What is left of cpu and memory once items were put in by ratio, in pieces if need be, until one
/// of the two is gone. Uses up the ratios.
fn fractional(entries: &mut [Entry]) -> (f64, f64) {
    let (mut cpu, mut memory) = (1.0_f64, 1.0_f64);
    for _ in 0..CHOICES {
        let best = entries.iter_mut().max_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let Some(entry) = best.filter(|entry| entry.ratio >= 0.0) else { break };
        let by_cpu = if entry.cpu > 0.0 { cpu / entry.cpu } else { f64::MAX };
        let by_memory = if entry.memory > 0.0 { memory / entry.memory } else { f64::MAX };
        let count = f64::from(entry.most).min(by_cpu).min(by_memory);
        cpu -= count * entry.cpu;
        memory -= count * entry.memory;
        entry.ratio = -1.0;
        if cpu < 1e-6 || memory < 1e-6 {
            break;
        }
    }
    (cpu, memory)
}

/// Depth-first search over counts.
struct Depth<'s> {
    items: &'s [Item],
    room: &'s [i64],
    choices: &'s [Entry],
    used: Vec<i64>,
    counts: Vec<u32>,
    best: Vec<u32>,
    best_value: f64,
    nodes: u32,
}

impl Depth<'_> {
    /// Decides the counts from `level` on; `free` is the weight still free.
    fn descend(&mut self, level: usize, value: f64, free: f64) {
        if value > self.best_value {
            self.best_value = value;
            self.best.clone_from(&self.counts);
        }
        let Some(entry) = self.choices.get(level).copied() else { return };
        let Some(item) = self.items.get(entry.item) else { return };
        let next = self.choices.get(level + 1).map_or(0.0, |entry| entry.ratio);
        let most = times(&item.request, &self.used, self.room).min(entry.most);
        for count in (0..=most).rev() {
            if self.nodes == 0 {
                return;
            }
            self.nodes -= 1;
            let number = f64::from(count);
            let (own, rest) = (value + number * entry.value, free - number * entry.weight);
            // By weight, no way to fill the rest is worth more than its best item throughout.
            if own + rest.max(0.0) * next <= self.best_value * (1.0 + 1e-9) {
                return;
            }
            self.put(level, &item.request, count, 1);
            self.descend(level + 1, own, rest);
            self.put(level, &item.request, count, -1);
        }
    }

    fn put(&mut self, level: usize, request: &[i64], count: u32, sign: i64) {
        let times = i64::from(count) * sign;
        for (used, request) in self.used.iter_mut().zip(request) {
            *used = used.saturating_add(request.saturating_mul(times));
        }
        if let Some(slot) = self.counts.get_mut(level) {
            *slot = if sign > 0 { count } else { 0 };
        }
    }
}

/// A node while it is filled.
struct Fill<'s> {
    items: &'s [Item],
    room: &'s [i64],
    used: Vec<i64>,
    contents: Vec<(usize, u32)>,
    value: f64,
}

impl Fill<'_> {
    fn put(&mut self, entry: &Entry, count: u32) {
        let Some(item) = self.items.get(entry.item).filter(|_| count > 0) else { return };
        add_times(&mut self.used, &item.request, count);
        self.value += entry.value * f64::from(count);
        match self.contents.iter_mut().find(|(known, _)| *known == entry.item) {
            Some((_, known)) => *known += count,
            None => self.contents.push((entry.item, count)),
        }
    }

    fn held(&self, item: usize) -> u32 {
        self.contents.iter().find(|(known, _)| *known == item).map_or(0, |(_, count)| *count)
    }

    /// Puts in whatever still fits, best ratio first.
    fn top_up(&mut self, choices: &[Entry], rest: &[Entry]) {
        let mut open: Vec<Entry> = Vec::new();
        for entry in choices.iter().chain(rest) {
            let Some(item) = self.items.get(entry.item) else { continue };
            if self.held(entry.item) < entry.most && fits(&item.request, &self.used, self.room) {
                open.push(*entry);
            }
        }
        open.sort_unstable_by(by_ratio);
        for entry in open {
            let Some(item) = self.items.get(entry.item) else { continue };
            let count = times(&item.request, &self.used, self.room);
            self.put(&entry, count.min(entry.most.saturating_sub(self.held(entry.item))));
        }
    }
}
