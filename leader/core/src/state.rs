//! Replicated state: what is in flight and what must survive a leader.
//!
//! [`State::apply`] is the only way to change it. It is deterministic, never panics, takes every
//! command at most once where twice would harm, and says why it refuses one.

mod claim;
mod launch;
mod leave;
mod notice;
mod offering;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use drover_common::id::{
    DisruptionId, InstanceId, IntentId, NodeClaimName, NodeName, NodePoolName,
};
use drover_common::protocol::{NoticeKind, UsageDigest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::{Change, Command, LaunchIntent};
use crate::journal::{Decision, Journal};

pub use claim::{ClaimRecord, Stage};
pub use launch::PoolHealth;
pub use leave::{DisruptionRecord, Termination};
pub use notice::NoticeRecord;
pub use offering::OfferingKey;

/// What applying a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applied {
    /// State changed.
    Done,
    /// State already was as the command wants it.
    Unchanged,
    /// The command does not fit State.
    Rejected {
        /// What does not fit.
        reason: String,
    },
}

impl Applied {
    fn rejected(reason: impl Into<String>) -> Self {
        Applied::Rejected { reason: reason.into() }
    }
}

/// What all replicas agree on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The last log index applied.
    pub applied: u64,
    /// When the last command was proposed.
    pub applied_at: Timestamp,
    /// Launches without a recorded outcome.
    pub intents: BTreeMap<IntentId, LaunchIntent>,
    /// Launches whose outcome is recorded, for an hour: a repeated `CreateIntent` is recognised.
    pub closed_intents: BTreeMap<IntentId, Timestamp>,
    /// Every claim that is or may be backed by an instance, and those whose objects still linger.
    pub claims: BTreeMap<NodeClaimName, ClaimRecord>,
    /// Which claim an instance serves.
    pub instances: BTreeMap<InstanceId, NodeClaimName>,
    /// Notices by instance and kind.
    pub notices: BTreeMap<InstanceId, BTreeMap<NoticeKind, NoticeRecord>>,
    /// Disruptions under way.
    pub disruptions: BTreeMap<DisruptionId, DisruptionRecord>,
    /// Committed terminations, until EC2 says the instance is gone.
    pub terminations: BTreeMap<InstanceId, Termination>,
    /// Offerings that EC2 could not give, and until when they are left alone.
    pub unavailable: BTreeMap<OfferingKey, Timestamp>,
    /// How launches of a pool fared lately.
    pub pools: BTreeMap<NodePoolName, PoolHealth>,
    /// The last measured use by node (without its pods) and when it was batched.
    pub usage: BTreeMap<NodeName, (Timestamp, UsageDigest)>,
    /// Pools an operator paused.
    pub paused_pools: BTreeMap<NodePoolName, Pause>,
    /// Set while an operator has paused everything.
    pub paused: Option<Pause>,
    /// What was decided.
    pub journal: Journal,
}

/// An operator's pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// The operator.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
}

impl State {
    /// Applies the command at log position `index`. Entries at or below [`State::applied`] are
    /// already in and change nothing.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        if index <= self.applied && self.applied != 0 {
            return Applied::Unchanged;
        }
        self.applied = index;
        self.applied_at = self.applied_at.max(command.at);
        self.expire(command.at);
        self.apply_change(index, command.at, &command.change)
    }

    fn apply_change(&mut self, index: u64, at: Timestamp, change: &Change) -> Applied {
        match change {
            Change::CreateIntent { intent } => self.create_intent(index, at, intent),
            Change::RecordLaunched { intent, launched, unavailable, errors } => {
                self.record_launched(index, at, intent, launched, unavailable, errors)
            }
            Change::RecordLaunchFailed { intent, errors, unavailable } => {
                self.record_launched(index, at, intent, &[], unavailable, errors)
            }
            Change::AdoptClaim { claim } => self.adopt_claim(index, at, claim),
            Change::RecordRegistered { claim, node } => self.record_registered(at, claim, node),
            Change::RecordReservationLapsed { claim, hourly_price_micro } => {
                self.record_reservation_lapsed(index, at, claim, *hourly_price_micro)
            }
            Change::RecordInitialized { claim } => self.record_initialized(at, claim),
            Change::RecordNotice { node, notice, unavailable, source, by_issue, lasts } => {
                let told = notice::Told {
                    node: node.as_ref(),
                    source: *source,
                    by_issue: *by_issue,
                    lasts: *lasts,
                };
                self.record_notice(index, at, told, notice, unavailable.as_ref())
            }
            Change::WithdrawNotice { instance, kind } => {
                self.withdraw_notice(index, at, instance, *kind)
            }
            Change::CommitDisruption { disruption, intents } => {
                self.commit_disruption(index, at, disruption, intents)
            }
            Change::StartDrain { disruption, deadline } => {
                self.start_drain(at, disruption, *deadline)
            }
            Change::CancelDisruption { disruption, reason } => {
                self.cancel_disruption(index, at, disruption, reason)
            }
            Change::TightenDisruption { claim, disruption, notice, deadline, explanation } => {
                let pressing = (*notice, *deadline, explanation.as_str());
                self.tighten_disruption(index, at, claim, disruption, pressing)
            }
            Change::RecordDrained { claim, by } => self.record_drained(at, claim, by),
            Change::CommitTermination { instance, claim, reason } => {
                self.commit_termination(index, at, instance, claim.as_ref(), reason)
            }
            Change::RecordTerminated { instance, claim, reason } => {
                self.record_terminated(index, at, instance.as_ref(), claim.as_ref(), reason)
            }
            Change::ForgetClaim { claim } => self.forget_claim(claim),
            Change::RecordUsage { digests } => self.record_usage(at, digests),
            Change::SetPause { nodepool, paused, by, reason } => {
                self.set_pause(index, at, nodepool.as_ref(), *paused, by, reason)
            }
            Change::Unknown => Applied::rejected("the command's verb is unknown to this version"),
        }
    }

    /// Drops what time has made void. Command time is the only clock here.
    fn expire(&mut self, at: Timestamp) {
        self.unavailable.retain(|_, until| *until > at);
        self.closed_intents.retain(|_, closed| seconds_between(*closed, at) < 3_600);
        self.usage.retain(|_, (batched, _)| seconds_between(*batched, at) < 86_400);
        self.notices.retain(|_, kinds| {
            kinds.retain(|_, record| !record.is_over(at));
            !kinds.is_empty()
        });
    }

    fn record_usage(&mut self, at: Timestamp, digests: &[(NodeName, UsageDigest)]) -> Applied {
        for (node, digest) in digests {
            let totals = UsageDigest { pods: Vec::new(), ..digest.clone() };
            self.usage.insert(node.clone(), (at, totals));
        }
        if digests.is_empty() { Applied::Unchanged } else { Applied::Done }
    }

    fn set_pause(
        &mut self,
        index: u64,
        at: Timestamp,
        nodepool: Option<&NodePoolName>,
        paused: bool,
        by: &str,
        reason: &str,
    ) -> Applied {
        let pause = Pause { since: at, by: by.to_owned(), reason: reason.to_owned() };
        let was = match (nodepool, paused) {
            (None, true) => self.paused.replace(pause).is_some(),
            (None, false) => self.paused.take().is_some(),
            (Some(pool), true) => self.paused_pools.insert(pool.clone(), pause).is_some(),
            (Some(pool), false) => self.paused_pools.remove(pool).is_some(),
        };
        if was == paused {
            return Applied::Unchanged;
        }
        let subject = nodepool.map_or_else(|| "the whole cluster".to_owned(), |p| p.to_string());
        self.journal.write(Decision {
            index,
            at,
            verb: if paused { "pause" } else { "resume" }.to_owned(),
            subjects: vec![subject],
            inputs: vec![format!("operator {by}")],
            why: reason.to_owned(),
            ..Decision::default()
        });
        Applied::Done
    }

    /// Whether voluntary decisions and launches for the pool are stopped by an operator.
    pub fn is_paused(&self, nodepool: Option<&NodePoolName>) -> bool {
        self.paused.is_some() || nodepool.is_some_and(|pool| self.paused_pools.contains_key(pool))
    }
}

/// Whole seconds from `earlier` to `later`; negative if they are the other way round.
pub(crate) fn seconds_between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.as_second().saturating_sub(earlier.as_second())
}
