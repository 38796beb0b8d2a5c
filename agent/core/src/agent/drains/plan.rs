//! What a drain may meet, drawn at random.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) struct PodPlan {
    /// Seconds.
    pub(super) grace: i64,
    /// The budgets that cover it: more than one can never be evicted.
    pub(super) budgets: Vec<usize>,
    pub(super) stays: Option<Stays>,
    pub(super) shy: Option<Shy>,
    pub(super) stateful: bool,
    pub(super) critical: bool,
    /// How long it stays after its end because its volumes are slow, milliseconds.
    pub(super) unmount: i64,
}

/// Why a pod is none that has to leave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stays {
    Daemon,
    Mirror,
    Tolerates,
    Ended,
}

/// A pod's `karpenter.sh/do-not-disrupt`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shy {
    Always,
    /// So many seconds from the start of the drain.
    For(i64),
}

impl PodPlan {
    pub(super) fn is_shy(&self, now: i64) -> bool {
        match self.shy {
            None => false,
            Some(Shy::Always) => true,
            Some(Shy::For(seconds)) => now < seconds * 1000,
        }
    }

    /// When only its grace is left until `end`: a deletion needs three seconds to be tried again.
    pub(super) fn last_moment(&self, end: i64) -> i64 {
        end - self.grace.max(3) * 1000
    }
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
    /// 429 of priority and fairness, which asks for so many seconds.
    Overloaded(u32),
    /// 500.
    Error,
    /// An eviction is answered after ten seconds: its budget was charged by others all the time.
    Contended,
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

/// What changes of the reasons for the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// EC2 announces to take the instance so many seconds from then.
    Spot(i64),
    /// EC2 says no more of it.
    SpotGone,
    Rebalance,
    /// EC2 announces maintenance so many seconds from then.
    Maintenance(i64),
    MaintenanceGone,
    /// Whether the Auto Scaling group is about to end the instance.
    AutoScaling(bool),
    /// The leaders disrupt the Node, or disrupt it for more: budgets give way so many seconds from then.
    Disrupt(Option<i64>, &'static str),
    /// The leaders call it off.
    CallOff,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) pods: Vec<PodPlan>,
    pub(super) budgets: [BudgetPlan; 3],
    pub(super) bad_times: Vec<BadTime>,
    /// How late the watch is, milliseconds.
    pub(super) watch_delay: i64,
    /// Whether the API server makes a second from now of a shortened end that would have passed.
    pub(super) clamps: bool,
    /// By time, whole seconds.
    pub(super) events: Vec<(i64, Event)>,
    /// What EC2 does to a spot instance that it takes.
    pub(super) action: &'static str,
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
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let opens = prop_oneof![2 => Just(0), 2 => 0..150_000_i64, 1 => Just(i64::MAX)];
    let budget = (opens, 1..4_usize, 500..40_000_i64)
        .prop_map(|(opens, allowed, recovery)| BudgetPlan { opens, allowed, recovery });
    let faults = vec![
        Fault::Error,
        Fault::Contended,
        Fault::Refused,
        Fault::Hang,
        Fault::LostAnswer,
        Fault::Late,
    ];
    let fault = prop_oneof![
        1 => (1..=32_u32).prop_map(Fault::Overloaded),
        6 => prop::sample::select(faults),
    ];
    let bad_time = (0..140_000_i64, 500..40_000_i64, fault, 1..5_usize)
        .prop_map(|(from, length, fault, nth)| BadTime { from, until: from + length, fault, nth });
    (
        prop::collection::vec(pod(), 0..40),
        [budget.clone(), budget.clone(), budget],
        prop::collection::vec(bad_time, 0..4),
        0..1_500_i64,
        prop::bool::weighted(0.7),
        events(),
        prop::sample::select(vec!["terminate", "stop"]),
    )
        .prop_map(|(pods, budgets, bad_times, watch_delay, clamps, events, action)| Plan {
            pods,
            budgets,
            bad_times,
            watch_delay,
            clamps,
            events,
            action,
        })
}

fn pod() -> impl Strategy<Value = PodPlan> {
    let grace = prop_oneof![1 => Just(0), 4 => 1..60_i64, 2 => 60..=600_i64];
    let budgets = prop_oneof![
        4 => Just(Vec::new()),
        4 => (0..3_usize).prop_map(|budget| vec![budget]),
        1 => Just(vec![0, 1]),
    ];
    let slow = prop_oneof![3 => Just(0), 1 => 0..30_000_i64];
    let stays = vec![Stays::Daemon, Stays::Mirror, Stays::Tolerates, Stays::Ended];
    let stays = prop::option::weighted(0.15, prop::sample::select(stays));
    let shy = prop_oneof![Just(Shy::Always), (-20..120_i64).prop_map(Shy::For)];
    let shy = prop::option::weighted(0.15, shy);
    let rarely = prop::bool::weighted(0.15);
    (grace, budgets, stays, shy, rarely, rarely, slow).prop_map(
        |(grace, budgets, stays, shy, stateful, critical, unmount)| PodPlan {
            grace,
            budgets,
            stays,
            shy,
            stateful,
            critical,
            unmount,
        },
    )
}

/// How a drain begins, and what happens after.
fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let spot = || (0..=120_i64).prop_map(Event::Spot);
    let maintenance = || {
        let begins = prop_oneof![6 => -60..200_i64, 1 => Just(7_200_i64)];
        begins.prop_map(Event::Maintenance)
    };
    let disrupt = || {
        let deadline = prop_oneof![2 => Just(None), 5 => (-60..160_i64).prop_map(Some)];
        let reasons = ["Expiration", "Drifted", "maintenance", "auto-scaling", "spot-terminate"];
        (deadline, prop::sample::select(reasons.to_vec()))
            .prop_map(|(deadline, reason)| Event::Disrupt(deadline, reason))
    };
    let first = prop_oneof![
        6 => spot(),
        5 => disrupt(),
        1 => maintenance(),
        1 => Just(Event::AutoScaling(true)),
        1 => Just(Event::Rebalance),
    ];
    let later = prop_oneof![
        5 => spot(),
        4 => disrupt(),
        3 => Just(Event::CallOff),
        2 => maintenance(),
        1 => Just(Event::SpotGone),
        1 => Just(Event::MaintenanceGone),
        1 => any::<bool>().prop_map(Event::AutoScaling),
        1 => Just(Event::Rebalance),
    ];
    let count = prop_oneof![2 => Just(0), 3 => 1..4_usize];
    let later =
        count.prop_flat_map(move |count| prop::collection::vec((1..110_i64, later.clone()), count));
    (first, later).prop_map(|(first, mut later)| {
        later.push((0, first));
        later.sort_by_key(|&(second, _)| second);
        later.into_iter().map(|(second, event)| (second * 1000, event)).collect()
    })
}
