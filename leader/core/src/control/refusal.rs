//! Launches that fail for another reason than a shortage. Of what is short the next plan takes something
//! else; a request that EC2 or Kubernetes refuses as such it would only make again. The pool waits,
//! longer each time, until a launch succeeds or someone changes the pool or its class.

use std::collections::BTreeMap;

use drover_common::id::NodePoolName;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::object::after;
use super::problem::Subject;
use crate::command::{Change, LaunchIntent};

/// The first wait; it doubles with every further refusal.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// Pools whose last launch was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(BTreeMap<NodePoolName, Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    /// How many rounds of launches were, in a row.
    times: u32,
    /// When the first of the last round was.
    at: Timestamp,
    why: String,
    /// Generations of the pool and its class by then.
    asked: Generations,
}

type Generations = (Option<i64>, Option<i64>);

impl Refusal {
    fn waits_until(&self) -> Timestamp {
        let doubled = 1_i32 << self.times.saturating_sub(1).min(10);
        after(self.at, FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT))
    }
}

impl Control {
    /// Takes in what a launch came to, as it is about to be recorded.
    pub(super) fn note_outcome(&mut self, intent: &LaunchIntent, outcome: &Change, now: Timestamp) {
        let Some(pool) = &intent.nodepool else { return };
        match outcome {
            Change::RecordLaunched { .. } => self.forget_refusals(pool),
            Change::RecordLaunchFailed { errors, unavailable, .. } if unavailable.is_empty() => {
                let before = self.refusals.0.get(pool);
                // Of launches that were decided together one tells all; and the outcome of each is looked at
                // until State shows it.
                if before.is_some_and(|refusal| intent.created_at <= refusal.at) {
                    return;
                }
                let times = before.map_or(0, |refusal| refusal.times).saturating_add(1);
                let words =
                    errors.first().map(|error| format!("{}: {}", error.code, error.message));
                let why = words.unwrap_or_else(|| "EC2 returned no instance".to_owned());
                let asked = self.generations_of(pool, &intent.nodeclass);
                let refusal = Refusal { times, at: now, why, asked };
                self.problems.tell(Subject::Launches(pool.clone()), describe(&refusal), now);
                self.refusals.0.insert(pool.clone(), refusal);
            }
            _ => {}
        }
    }

    /// Forgets what was remembered of NodePools that are gone.
    pub(super) fn forget_gone_pools(&mut self) {
        let pools = self.view.pools();
        self.refusals.0.retain(|pool, _| pools.contains_key(pool));
    }

    fn forget_refusals(&mut self, pool: &NodePoolName) {
        if self.refusals.0.remove(pool).is_some() {
            self.problems.mended(&Subject::Launches(pool.clone()));
        }
    }

    /// Why nothing is launched for a pool for a while after a refusal, if so.
    pub(super) fn refused_lately(&self, pool: &NodePoolName, now: Timestamp) -> Option<String> {
        let refusal = self.refusals.0.get(pool)?;
        let class = self.view.pools().get(pool).map(|p| &p.spec.template.spec.node_class_ref.name);
        let unchanged = self.generations_of(pool, class?) == refusal.asked;
        (unchanged && refusal.waits_until() > now).then(|| describe(refusal))
    }

    /// Whether the last launch of a pool was refused.
    pub(super) fn is_refused(&self, pool: &NodePoolName) -> bool {
        self.refusals.0.contains_key(pool)
    }

    fn generations_of(&self, pool: &NodePoolName, class: &str) -> Generations {
        let pool = self.view.pools().get(pool).and_then(|pool| pool.metadata.generation);
        let class = self.view.classes().get(class).and_then(|class| class.metadata.generation);
        (pool, class)
    }
}

fn describe(refusal: &Refusal) -> String {
    let (why, until) = (&refusal.why, refusal.waits_until());
    match refusal.times {
        1 => format!("the last launch failed, {why}; not tried again before {until}"),
        times => format!("the last {times} launches failed, {why}; not tried again before {until}"),
    }
}
