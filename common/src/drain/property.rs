//! A thousand drains, the same ones each time, in a world with budgets that block, overlap or recover,
//! graces of 0 to 600 s, slow volumes, a late watch, and an API server that refuses, fails and hangs.
//!
//! `PROPTEST_CASES=100000 cargo test -p drover-common a_thousand_drains` runs more of them.

mod plan;
mod world;

use std::cell::RefCell;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::*;
use plan::{Plan, plans};
use world::{World, at, uid};

const TICK: i64 = 250;
/// An API server that is well for so long has let every deletion through, milliseconds: the last one
/// may have hung for three seconds, and a refused one is repeated after one.
const DELETES_WITHIN: i64 = 5_000;
/// The same of evictions, which may hang for 11 s and are then paced.
const EVICTS_WITHIN: i64 = 20_000;
/// Rounding to whole seconds and ticks.
const SLACK: i64 = 2_000;

#[derive(Debug, Default)]
struct Totals {
    drains: u32,
    spot: u32,
    pods: usize,
    calls: usize,
    evicted: u32,
    clipped: u32,
    forced: u32,
    /// Left because the API server did not let them go.
    left: usize,
}

#[test]
fn a_thousand_drains_keep_the_law_and_finish_in_time() {
    let config = Config { rng_seed: RngSeed::Fixed(5), ..Config::default() };
    let cases = config.cases.max(1_000);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..config });
    let totals = RefCell::new(Totals::default());
    runner.run(&plans(), |plan| drain(&plan, &totals)).unwrap();
    println!("{:?}", totals.into_inner());
}

fn drain(plan: &Plan, totals: &RefCell<Totals>) -> Result<(), TestCaseError> {
    let mut world = World::new(plan.clone());
    let deadline = Some(at(plan.deadline));
    let budgets_end = deadline.filter(|_| plan.passes);
    let purpose = Purpose { disruption: None, hurries: plan.passes, end: deadline, budgets_end };
    let mut state = DrainState::default();
    let mut now = 0;
    while now <= plan.deadline {
        world.tick(&mut state, &purpose, now);
        if state.report().phase == DrainPhase::Drained {
            check_drained(&world, now)?;
            break;
        }
        now += TICK;
    }
    let mut left = 0;
    for index in 0..plan.pods.len() {
        left += usize::from(judge(&world, index)?);
    }
    let report = state.report();
    let leaving = plan.pods.iter().filter(|pod| !pod.stays).count();
    check(report.evicted + report.forced <= u32::try_from(leaving).unwrap(), || {
        format!("a pod leaves once: {report:?}")
    })?;
    check(plan.passes || report.forced + report.clipped == 0, || format!("{report:?}"))?;
    let totals = &mut *totals.borrow_mut();
    totals.drains += 1;
    totals.spot += u32::from(plan.passes);
    totals.pods += leaving;
    totals.calls += world.calls;
    totals.evicted += report.evicted;
    totals.clipped += report.clipped;
    totals.forced += report.forced;
    totals.left += left;
    Ok(())
}

fn check(holds: bool, words: impl FnOnce() -> String) -> Result<(), TestCaseError> {
    if holds { Ok(()) } else { Err(TestCaseError::fail(words())) }
}

/// A drain that calls itself done has left nothing behind. (A pod that is overdue for a minute has lost
/// its kubelet; no pod of this world is.)
fn check_drained(world: &World, now: i64) -> Result<(), TestCaseError> {
    check(!world.is_occupied(), || format!("done at {now} ms with pods on the node"))
}

/// Judges what became of one pod; returns whether it was left to be killed with the machine.
fn judge(world: &World, index: usize) -> Result<bool, TestCaseError> {
    let plan = &world.plan;
    let pod = &plan.pods[index];
    let uid = uid(index);
    let ending = world.endings.get(&uid);
    if pod.stays {
        check(ending.is_none(), || format!("{uid} had to stay"))?;
        return Ok(false);
    }
    // From then on nothing but the API server can keep the pod.
    let free = if plan.passes {
        Some((plan.deadline - pod.grace.max(3) * 1000).max(0))
    } else {
        (pod.budgets.is_empty() && !pod.critical).then_some(0)
    };
    let length = if plan.passes { DELETES_WITHIN } else { EVICTS_WITHIN };
    let gone_by = free.and_then(|from| plan.well_for(from, length));
    let Some(ending) = ending else {
        check(gone_by.is_none(), || format!("{uid} could have gone by {gone_by:?} ms"))?;
        return Ok(true);
    };
    check(gone_by.is_none_or(|by| ending.since <= by + SLACK), || {
        format!("{uid} went at {} ms, could have by {gone_by:?}", ending.since)
    })?;
    if plan.passes {
        let left = (plan.deadline - ending.asked) / 1000;
        let due = pod.grace.min(left).max(i64::from(pod.grace > 0));
        check(ending.grace >= due, || {
            format!("{uid} was given {} s at {} ms, {due} were left", ending.grace, ending.asked)
        })?;
    } else {
        check(ending.grace == pod.grace && !ending.forced, || format!("{uid}: {ending:?}"))?;
    }
    Ok(false)
}
