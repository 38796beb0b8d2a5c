//! A thousand drains, the same ones each time, by a whole agent: in a world with budgets that block,
//! overlap or recover, graces of 0 to 600 s, pods that ask not to be disrupted, slow volumes, late watches,
//! and an API server that refuses, fails and hangs. EC2 and the leaders begin a drain for one reason and go
//! on with another, earlier, or call it off.
//!
//! `PROPTEST_CASES=100000 cargo test -p drover-agent-core a_thousand_drains` runs more of them.

mod law;
mod plan;
mod story;
mod world;

use std::sync::Mutex;

use drover_common::protocol::DrainPhase;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::*;
use plan::{Plan, PodPlan, plans};
use story::{Grounds, Story};
use world::{SLACK, World, at, uid};

const TICK: i64 = 250;
/// No drain of this world is watched for longer, milliseconds.
const HORIZON: i64 = 170_000;
/// An API server that is well for so long has let every deletion through, milliseconds: the last one
/// may have hung for three seconds, and a refused one is repeated after one.
const DELETES_WITHIN: i64 = 5_000;
/// The same of evictions, which may hang for 11 s and are then paced.
const EVICTS_WITHIN: i64 = 20_000;
/// The same of the reads by which an agent sees what a directive wants.
const READS_WITHIN: i64 = 7_000;

#[derive(Debug, Default)]
struct Totals {
    drains: u32,
    /// For more than one reason in turn, or called off.
    changed: u32,
    pods: usize,
    calls: usize,
    evicted: usize,
    clipped: usize,
    forced: usize,
    /// Left because the API server, a budget or the pod's own wish did not let them go.
    left: usize,
}

/// In two halves side by side: each step of an agent costs little, and there are millions.
const SEEDS: [u64; 2] = [5, 6];

#[test]
fn a_thousand_drains_keep_the_law_and_finish_in_time() {
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|halves| {
        for seed in SEEDS {
            let totals = &totals;
            halves.spawn(move || drain_many(seed, totals));
        }
    });
    println!("{:?}", totals.into_inner().unwrap());
}

fn drain_many(seed: u64, totals: &Mutex<Totals>) {
    let config = Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let cases = config.cases.max(1_000) / 2;
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..config });
    let drain = |plan| Drain::new(plan).run(totals).map_err(TestCaseError::fail);
    runner.run(&plans(), drain).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

struct Drain {
    agent: Agent,
    world: World,
    story: Story,
    /// At each tick, what the agent must have for true by then, if that is certain.
    known: Vec<Option<Grounds>>,
    /// How long an API server that is well has shown the Node as the disruption marks it.
    readable_for: (u32, i64),
    /// How long pods could have been made to end by the deadline, and when that is.
    outlasting: (Option<i64>, BTreeMap<String, i64>),
}

impl Drain {
    fn new(plan: Plan) -> Self {
        let identity = Identity { node: "n".into(), boot: "b".into() };
        Self {
            agent: Agent::new(identity, None, SignedDuration::from_secs(10)),
            story: Story::new(plan.action),
            world: World::new(plan),
            known: Vec::new(),
            readable_for: (0, 0),
            outlasting: (None, BTreeMap::new()),
        }
    }

    fn run(mut self, totals: &Mutex<Totals>) -> Result<(), String> {
        self.feed(Input::Instance("i-1".into()), 0)?;
        for event in self.world.list() {
            self.feed(Input::Cluster(event), 0)?;
        }
        let mut now = 0;
        while now < self.story.death().min(HORIZON) {
            self.tick(now)?;
            if self.is_drained() {
                // A pod that is overdue for a minute has lost its kubelet; no pod of this world is.
                check(!self.world.is_occupied(), || {
                    format!("done at {now} ms with pods on the node")
                })?;
                if self.world.plan.events.iter().all(|&(time, _)| time <= now) {
                    break;
                }
            }
            now += TICK;
        }
        self.judge(totals)
    }

    fn is_drained(&self) -> bool {
        self.agent.drain.as_ref().is_some_and(|drain| drain.report().phase == DrainPhase::Drained)
    }

    fn tick(&mut self, now: i64) -> Result<(), String> {
        let mut inputs = Vec::new();
        for (_, event) in self.world.plan.events.clone().iter().filter(|(time, _)| *time == now) {
            if let Some(patch) = self.story.happen(*event, now) {
                self.world.change_node(patch, now);
            }
        }
        self.world.pass(now);
        if now % 1_000 == 0 {
            for path in NoticePath::ALL {
                let answer = self.story.answer(path, now);
                self.feed(Input::Notice(path, answer), now)?;
            }
            let named = self.story.marks().map(|marks| format!("d-{}", marks.id));
            let directive = |id: String| Directive { disruption: id.into(), deadline: None };
            inputs.push(Input::Directives(named.map(directive).into_iter().collect()));
        }
        inputs.extend(self.world.inputs(now));
        if inputs.is_empty() {
            inputs.push(Input::Tick);
        }
        for input in inputs {
            self.feed(input, now)?;
        }
        let known = self.certain(now);
        self.check_endings(known.as_ref(), now)?;
        self.known.push(known);
        Ok(())
    }

    fn feed(&mut self, input: Input, now: i64) -> Result<(), String> {
        let effects = self.agent.step(input, at(now));
        if !effects.iter().any(|effect| matches!(effect, Effect::Call(..))) {
            return Ok(());
        }
        let mut possible = self.story.possible(self.world.plan.watch_delay, now);
        // Of a disruption that it has yet to read on its Node an agent need not know.
        let id = self.story.marks().map_or(0, |marks| marks.id);
        if self.readable_for.0 != id || self.readable_for.1 < READS_WITHIN {
            let mut unread = possible.clone();
            unread.iter_mut().for_each(|grounds| grounds.marks = None);
            possible.extend(unread);
        }
        for effect in effects {
            if let Effect::Call(key, call) = effect {
                self.world.execute(key, &call, &possible, now)?;
            }
        }
        Ok(())
    }

    /// What the agent must have for true by now: marks of its Node once it has had the time to read it.
    fn certain(&mut self, now: i64) -> Option<Grounds> {
        let mut possible = self.story.possible(self.world.plan.watch_delay, now);
        let id = self.story.marks().map_or(0, |marks| marks.id);
        let (known, time) = self.readable_for;
        let time = if id == known { time } else { 0 };
        let is_read = time >= READS_WITHIN;
        let is_well = self.world.plan.is_well(now, now + TICK);
        self.readable_for = match (is_read, is_well) {
            (true, _) => (id, time),
            (false, true) => (id, time + TICK),
            (false, false) => (id, 0),
        };
        let mut grounds = possible.pop().filter(|_| possible.is_empty())?;
        grounds.marks = grounds.marks.filter(|_| is_read);
        Some(grounds)
    }

    /// A pod that ends, but not by the deadline, has to be told so.
    fn check_endings(&mut self, known: Option<&Grounds>, now: i64) -> Result<(), String> {
        let end = known.and_then(Grounds::budgets_end);
        let (known_end, times) = &mut self.outlasting;
        if *known_end != end || !self.world.plan.is_well(now, now + TICK) {
            *known_end = end;
            times.clear();
        }
        let Some(end) = end else { return Ok(()) };
        let outlasting = self.world.outlasting(end, now);
        times.retain(|uid, _| outlasting.contains(uid));
        for uid in outlasting {
            let time = times.entry(uid.clone()).or_default();
            *time += TICK;
            check(*time <= EVICTS_WITHIN, || {
                format!("{uid} still outlasts {end} ms at {now} ms: {:?}", self.world.endings)
            })?;
        }
        Ok(())
    }

    /// When the pod had to be on its way, by what was certain.
    fn gone_by(&self, pod: &PodPlan) -> Option<i64> {
        let (mut deletable_for, mut evictable_for) = (0, 0);
        let mut now = 0;
        for known in &self.known {
            let is_well = self.world.plan.is_well(now, now + TICK);
            let known = known.as_ref().filter(|_| is_well);
            let count = |time: &mut i64, is_free: bool| {
                *time = if is_free { *time + TICK } else { 0 };
                *time
            };
            let deletable = known.is_some_and(|known| known.frees_by_deletion(pod, now));
            let evictable = known.is_some_and(|known| known.frees_by_eviction(pod, now));
            now += TICK;
            if count(&mut deletable_for, deletable) >= DELETES_WITHIN
                || count(&mut evictable_for, evictable) >= EVICTS_WITHIN
            {
                return Some(now);
            }
        }
        None
    }

    fn judge(&self, totals: &Mutex<Totals>) -> Result<(), String> {
        let totals = &mut *totals.lock().unwrap();
        let World { plan, endings, .. } = &self.world;
        totals.drains += 1;
        totals.changed += u32::from(plan.events.len() > 1);
        totals.calls += self.world.calls;
        for (index, pod) in plan.pods.iter().enumerate() {
            let uid = uid(index);
            let ending = endings.get(&uid);
            if pod.stays.is_some() {
                check(ending.is_none(), || format!("{uid} had to stay"))?;
                continue;
            }
            let gone_by = self.gone_by(pod);
            let since = ending.map(|ending| ending.since);
            check(gone_by.is_none_or(|by| since.is_some_and(|since| since <= by + SLACK)), || {
                format!("{uid} could have gone by {gone_by:?} ms, went at {since:?}")
            })?;
            totals.pods += 1;
            let Some(ending) = ending else {
                totals.left += 1;
                continue;
            };
            check(ending.grace > 0 || pod.grace == 0, || format!("{uid} got no grace"))?;
            let counter = if ending.forced { &mut totals.forced } else { &mut totals.evicted };
            *counter += 1;
            totals.clipped += usize::from(ending.grace < pod.grace);
        }
        Ok(())
    }
}

fn check(holds: bool, words: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(words()) }
}
