//! Twenty seeds of whole-system simulation. `DROVER_SEED=7` runs one seed alone, `DROVER_SEEDS=500`
//! so many from 1 on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZero;
use std::sync::Mutex;

use drover_tests::simulation::{Simulation, Verdict};
use jiff::SignedDuration;

fn run(seed: u64) -> Verdict {
    Simulation::new(seed).run(SignedDuration::from_secs(120), SignedDuration::from_mins(10))
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("DROVER_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("DROVER_SEEDS").unwrap_or(20)).collect(),
    }
}

/// Runs a seed and judges it.
fn judge(seed: u64) -> Verdict {
    let verdict = run(seed);
    assert!(verdict.broken.is_empty(), "seed {seed}: {:#?}", verdict.broken);
    assert!(verdict.unfinished.is_empty(), "seed {seed}: {:#?}", verdict.unfinished);
    assert!(verdict.launched > 0 && verdict.committed > 0, "seed {seed} did nothing");
    verdict
}

#[test]
fn nothing_is_launched_twice_and_everything_is_placed_once_faults_stop() {
    let left = Mutex::new(seeds().into_iter());
    let next = || left.lock().unwrap().next();
    let work = || std::iter::from_fn(next).map(judge).collect::<Vec<_>>();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("every seed is fine")).collect()
    });
    if std::env::var_os("DROVER_SEED").is_some() {
        return;
    }
    let sum = |of: fn(&Verdict) -> usize| verdicts.iter().map(of).sum::<usize>();
    for (what, count) in [
        ("consolidations", sum(|verdict| verdict.consolidated)),
        ("evictions", sum(|verdict| verdict.drains.evicted)),
        ("refused evictions", sum(|verdict| verdict.drains.refused)),
        ("deletions past budgets", sum(|verdict| verdict.drains.past_budget)),
        ("clipped pods", sum(|verdict| verdict.drains.clipped)),
    ] {
        println!("{count} {what}");
        assert!(count > 0, "there were no {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(3), run(3));
}
