//! The independent check in the leader: each plan is judged before it is acted on, and one that breaks
//! a rule is not.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::Control;
use super::problem::Subject;
use crate::planner::check::{Violation, check, check_repack};
use crate::planner::{Plan, PlanInput, RepackInput, RepackPlan, draft, plan, repack};
use crate::state::State;

/// Plans of more pods are not judged: the check goes pod by pod.
const MOST_JUDGED_PODS: usize = 2_000;
/// What is remembered of violations until somebody asks for them.
const MOST_REMEMBERED: usize = 100;

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanPurpose {
    /// Pods that wait.
    Provisioning,
    /// Fewer or cheaper nodes.
    Consolidation,
    /// The last look before nodes are drained.
    LastLook,
    /// Leaving a node that EC2 may take back.
    Rebalance,
}

impl PlanPurpose {
    /// As a label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Consolidation => "consolidation",
            Self::LastLook => "last-look",
            Self::Rebalance => "rebalance",
        }
    }
}

/// How often plans of one purpose were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlanChecks {
    /// They break no rule.
    pub sound: u64,
    /// They break one, and were not acted on.
    pub broken: u64,
    /// They were too large to be judged, and were acted on.
    pub skipped: u64,
}

/// What judging led to, since this replica began to lead.
#[derive(Clone, Debug, Default)]
pub(super) struct Soundness {
    checks: BTreeMap<PlanPurpose, PlanChecks>,
    untold: Vec<(PlanPurpose, Violation)>,
    /// A rule that every plan is said to break.
    #[cfg(test)]
    pub(super) broken: Option<Violation>,
}

impl Soundness {
    pub(super) fn checks(&self) -> &BTreeMap<PlanPurpose, PlanChecks> {
        &self.checks
    }
}

/// What the check said.
#[derive(Debug)]
pub(super) enum Verdict {
    NotAsked,
    TooLarge,
    Judged(Vec<Violation>),
}

impl Verdict {
    fn of(asked: bool, pods: usize, judge: impl FnOnce() -> Vec<Violation>) -> Self {
        match (asked, pods <= MOST_JUDGED_PODS) {
            (false, _) => Self::NotAsked,
            (true, false) => Self::TooLarge,
            (true, true) => Self::Judged(judge()),
        }
    }
}

/// A plan, judged if `asked`. Debug builds judge each plan besides, and only tell.
pub(super) fn judged(asked: bool, input: &PlanInput<'_>) -> (Plan, Verdict) {
    let made = if asked { draft(input) } else { plan(input) };
    let verdict = Verdict::of(asked, made.report.pods, || check(input, &made));
    (made, verdict)
}

/// A repack, judged if `asked`.
pub(super) fn judged_repack(asked: bool, input: &RepackInput<'_>) -> (RepackPlan, Verdict) {
    let made = repack(input);
    let verdict = Verdict::of(asked, made.report.moves, || check_repack(input, &made));
    (made, verdict)
}

impl Control {
    /// Plans for the pods that wait; `None` if the plan must not be acted on.
    pub(super) fn trusted_plan(&mut self, state: &State, now: Timestamp) -> Option<Plan> {
        let asked = self.settings.check_plans;
        let (made, verdict) = self.plan_with(state, now, |input| judged(asked, input));
        self.trusts(PlanPurpose::Provisioning, verdict, now).then_some(made)
    }

    /// Whether a plan may be acted on. Counts and remembers what was found.
    pub(super) fn trusts(
        &mut self,
        purpose: PlanPurpose,
        verdict: Verdict,
        now: Timestamp,
    ) -> bool {
        let violations = match verdict {
            Verdict::NotAsked => return true,
            Verdict::TooLarge => {
                let checks = self.soundness.checks.entry(purpose).or_default();
                checks.skipped = checks.skipped.saturating_add(1);
                self.problems.mended(&Subject::Plans(purpose));
                return true;
            }
            Verdict::Judged(violations) => violations,
        };
        #[cfg(test)]
        let violations = [violations, self.soundness.broken.iter().cloned().collect()].concat();
        let checks = self.soundness.checks.entry(purpose).or_default();
        let Some(first) = violations.first() else {
            checks.sound = checks.sound.saturating_add(1);
            self.problems.mended(&Subject::Plans(purpose));
            return true;
        };
        checks.broken = checks.broken.saturating_add(1);
        let words = format!("the last broke a rule and was not acted on: {first}");
        self.problems.tell(Subject::Plans(purpose), words, now);
        let room = MOST_REMEMBERED.saturating_sub(self.soundness.untold.len());
        let untold = violations.into_iter().take(room).map(|found| (purpose, found));
        self.soundness.untold.extend(untold);
        false
    }

    /// What the check found since it was asked last, to be logged.
    pub fn take_violations(&mut self) -> Vec<(PlanPurpose, Violation)> {
        std::mem::take(&mut self.soundness.untold)
    }
}
