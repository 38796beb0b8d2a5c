//! What a drain may meet, drawn at random.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct PodPlan {
    /// Seconds.
    pub(super) grace: i64,
    /// The budgets that cover it: more than one can never be evicted.
    pub(super) budgets: Vec<usize>,
    pub(super) stays: bool,
    pub(super) stateful: bool,
    pub(super) critical: bool,
    /// How long it stays after its end because its volumes are slow, milliseconds.
    pub(super) unmount: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetPlan {
    /// When it begins to allow anything, milliseconds; before, replacements aren't ready.
    pub(super) opens: i64,
    /// Disruptions allowed at a time.
    pub(super) allowed: usize,
    /// How long a replacement takes to be ready, milliseconds.
    pub(super) recovery: i64,
}

/// A bad answer of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 429 of priority and fairness.
    Overloaded,
    /// 500.
    Error,
    /// No connection.
    Refused,
    /// No answer, and nothing was done.
    Hang,
    /// No answer, but it was done.
    LostAnswer,
    /// No answer, and it's done seconds later.
    Late,
}

/// A time in which every `nth` call meets a fault.
#[derive(Clone, Debug)]
pub(super) struct BadTime {
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) fault: Fault,
    pub(super) nth: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) pods: Vec<PodPlan>,
    pub(super) budgets: [BudgetPlan; 3],
    pub(super) bad_times: Vec<BadTime>,
    /// How late the watch is, milliseconds.
    pub(super) watch_delay: i64,
    /// Milliseconds.
    pub(super) deadline: i64,
    /// Whether it's a spot loss.
    pub(super) passes: bool,
}

impl Plan {
    pub(super) fn fault_at(&self, now: i64, call: usize) -> Option<Fault> {
        let bad = |time: &&BadTime| {
            (time.from..time.until).contains(&now) && call.is_multiple_of(time.nth)
        };
        self.bad_times.iter().find(bad).map(|time| time.fault)
    }

    /// Whether the API server is well all the time from `from` to `until`.
    pub(super) fn is_well(&self, from: i64, until: i64) -> bool {
        self.bad_times.iter().all(|time| time.until <= from || time.from >= until)
    }

    /// The end of the first time of `length` after `from` in which the API server is well and that
    /// lies before the deadline.
    pub(super) fn well_for(&self, from: i64, length: i64) -> Option<i64> {
        let starts = std::iter::once(from).chain(self.bad_times.iter().map(|time| time.until));
        starts
            .filter(|&start| start >= from)
            .map(|start| start + length)
            .filter(|&end| end <= self.deadline && self.is_well(end - length, end))
            .min()
    }
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let grace = prop_oneof![1 => Just(0), 4 => 1..60_i64, 2 => 60..=600_i64];
    let budgets = prop_oneof![
        4 => Just(Vec::new()),
        4 => (0..3_usize).prop_map(|budget| vec![budget]),
        1 => Just(vec![0, 1]),
    ];
    let slow = prop_oneof![3 => Just(0), 1 => 0..30_000_i64];
    let rarely = prop::bool::weighted(0.15);
    let pod = (grace, budgets, rarely, rarely, rarely, slow).prop_map(
        |(grace, budgets, stays, stateful, critical, unmount)| PodPlan {
            grace,
            budgets,
            stays,
            stateful,
            critical,
            unmount,
        },
    );
    let opens = prop_oneof![2 => Just(0), 2 => 0..150_000_i64, 1 => Just(i64::MAX)];
    let budget = (opens, 1..4_usize, 500..40_000_i64)
        .prop_map(|(opens, allowed, recovery)| BudgetPlan { opens, allowed, recovery });
    let fault = prop::sample::select(vec![
        Fault::Overloaded,
        Fault::Error,
        Fault::Refused,
        Fault::Hang,
        Fault::LostAnswer,
        Fault::Late,
    ]);
    let bad_time = (0..140_000_i64, 500..40_000_i64, fault, 1..5_usize)
        .prop_map(|(from, length, fault, nth)| BadTime { from, until: from + length, fault, nth });
    (
        prop::collection::vec(pod, 0..50),
        [budget.clone(), budget.clone(), budget],
        prop::collection::vec(bad_time, 0..4),
        0..1_500_i64,
        0..150_000_i64,
        prop::bool::weighted(0.8),
    )
        .prop_map(|(pods, budgets, bad_times, watch_delay, deadline, passes)| Plan {
            pods,
            budgets,
            bad_times,
            watch_delay,
            deadline,
            passes,
        })
}
