//! The interruption queue, where an operator set one up: it tells what IMDS does not carry (an instance is
//! stopped or terminated by someone, AWS Health plans maintenance), and of spot what a node without
//! an agent would not tell.
//!
//! A message is deleted once what it tells is in the log, or is seen to concern nobody here. Until then it
//! is kept in mind; SQS hands out again what is not deleted, to this leader or to the next. A notice that
//! the node's own agent read is not replaced by the queue's.

use std::collections::BTreeMap;

use drover_common::call::{Call, Outcome};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, InstanceState, QueueEvent, QueueEventKind, QueueMessage,
};
use drover_common::id::{BootId, InstanceId};
use drover_common::protocol::{Notice, NoticeKind};
use drover_common::times::Times;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Control;
use super::calls::CallKey;
use super::object::after;
use super::problem::Subject;
use crate::command::{Change, NoticeSource};
use crate::state::State;

/// Messages in mind at once; more are left with SQS. Those of others' instances wait among them, and an
/// account has many.
const MOST_HELD: usize = 5_000;
/// Messages that one call deletes, at most: SQS' limit.
const MOST_DELETED: usize = 10;
/// A message that SQS has not handed out again for so long was deleted by another.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(1);
/// What should have happened so long ago has, or was called off: only the queue still tells of it.
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// How long an instance may be on its way into the log, or EC2 show it as it was before an event.
const SETTLES: SignedDuration = SignedDuration::from_secs(30);

/// What this leader heard from the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// Messages received, by what they tell.
    pub received: BTreeMap<QueueEventKind, u64>,
    /// Messages deleted.
    pub deleted: u64,
    /// The times that messages took from EventBridge to here.
    pub delays: Times,
}

/// A message that is not deleted yet.
#[derive(Clone, Debug)]
struct Held {
    /// What deletes it, as it was handed out last.
    receipt: String,
    received_at: Timestamp,
    handed_out_at: Timestamp,
    /// What is told of which instance.
    notices: Vec<Notice>,
    /// What was told of which instance and holds no more.
    called_off: Vec<Notice>,
    /// Instances of which EC2 itself shows what has happened.
    changed: Vec<InstanceId>,
}

/// The queue, as far as this leader knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// By the messages' ids.
    held: BTreeMap<String, Held>,
    counts: QueueCounts,
}

impl Queue {
    pub(super) fn counts(&self) -> &QueueCounts {
        &self.counts
    }

    fn count(&mut self, event: &QueueEvent, now: Timestamp) {
        let count = self.counts.received.entry(event.kind).or_default();
        *count = count.saturating_add(1);
        self.counts.delays.add(now.duration_since(event.at));
    }
}

impl Control {
    /// Listens to the queue, puts into the log what it tells, and deletes what is there.
    pub(super) fn heed_queue(&mut self, state: &State, now: Timestamp) {
        let Some(queue) = self.settings.interruption_queue.clone() else { return };
        let mut all = std::mem::take(&mut self.queue.held);
        all.retain(|_, held| now.duration_since(held.handed_out_at) < FORGOTTEN_AFTER);
        let called_off: Vec<&Notice> = all.values().flat_map(|held| &held.called_off).collect();
        for notice in all.values().flat_map(|held| &held.notices) {
            if !called_off.iter().any(|off| ends(off, notice)) {
                self.propose_queued(state, notice, now);
            }
        }
        called_off.iter().for_each(|off| self.withdraw_queued(state, off, now));
        let settled = all.iter().filter(|(_, held)| self.is_settled(state, held, &called_off, now));
        let settled = settled.map(|(id, held)| (id.clone(), held.receipt.clone()));
        let settled: Vec<(String, String)> = settled.take(MOST_DELETED).collect();
        self.queue.held = all;
        if self.queue.held.len() < MOST_HELD {
            let call = Ec2Call::ReceiveMessages { queue: queue.clone() };
            self.calls.call(CallKey::ReceiveMessages, Call::Ec2(call), now);
        }
        let (ids, receipts): (Vec<String>, Vec<String>) = settled.into_iter().unzip();
        let call = Call::Ec2(Ec2Call::DeleteMessages { queue, receipts });
        if !ids.is_empty() && self.calls.call(CallKey::DeleteMessages, call, now) {
            // Those that can't be deleted come again.
            ids.iter().for_each(|id| drop(self.queue.held.remove(id)));
        }
    }

    pub(super) fn take_messages(&mut self, outcome: Outcome, now: Timestamp) {
        let Outcome::Ec2(Ok(Ec2Answer::Messages(messages))) = outcome else { return };
        for message in messages {
            self.take_message(message, now);
        }
    }

    fn take_message(&mut self, message: QueueMessage, now: Timestamp) {
        if let Some(held) = self.queue.held.get_mut(&message.id) {
            held.receipt = message.receipt;
            held.handed_out_at = now;
            return;
        }
        let (mut notices, mut called_off, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        match QueueEvent::read(&message.body) {
            Ok(event) => {
                self.problems.mended(&Subject::QueueMessages);
                self.queue.count(&event, now);
                notices = notices_of(&event, now);
                if event.called_off {
                    called_off = std::mem::take(&mut notices);
                }
                if event.notice.is_none() {
                    changed = event.instances;
                }
            }
            Err(error) => {
                // It will not become readable: it is deleted like those that concern nobody.
                self.problems.tell(Subject::QueueMessages, error.to_string(), now);
                let unread = self.queue.counts.received.entry(QueueEventKind::NoOp).or_default();
                *unread = unread.saturating_add(1);
            }
        }
        let receipt = message.receipt;
        let (received_at, handed_out_at) = (now, now);
        let held = Held { receipt, received_at, handed_out_at, notices, called_off, changed };
        self.queue.held.insert(message.id, held);
    }

    pub(super) fn take_messages_deleted(&mut self, call: &Call, outcome: &Outcome) {
        if let Call::Ec2(Ec2Call::DeleteMessages { receipts, .. }) = call
            && matches!(outcome, Outcome::Ec2(Ok(_)))
        {
            let deleted = u64::try_from(receipts.len()).unwrap_or(0);
            self.queue.counts.deleted = self.queue.counts.deleted.saturating_add(deleted);
        }
    }

    /// Whether EC2 is to be asked at once what became of an instance.
    pub(super) fn queue_wants_read(&self, state: &State, now: Timestamp) -> bool {
        let held = self.queue.held.values();
        held.flat_map(|held| held.changed.iter().map(move |id| (held, id)))
            .any(|(held, id)| self.is_open_change(state, held, id, now))
    }

    /// Whether nothing of a message is left to be done. One that calls off is kept for a while: what it
    /// calls off may be handed out after it.
    fn is_settled(
        &self,
        state: &State,
        held: &Held,
        called_off: &[&Notice],
        now: Timestamp,
    ) -> bool {
        let of_nobody = |id: &InstanceId| !self.may_become_ours(state, id, held, now);
        let logged = |notice: &Notice| match state.claim_of_instance(&notice.instance) {
            Some(_) => {
                state.knows_of(notice, now) || called_off.iter().any(|off| ends(off, notice))
            }
            None => of_nobody(&notice.instance),
        };
        let withdrawn = |off: &Notice| !calls_off(state, off);
        held.notices.iter().all(logged)
            && held.called_off.iter().all(withdrawn)
            && (held.called_off.is_empty() || now.duration_since(held.received_at) >= SETTLES)
            && !held.changed.iter().any(|id| self.is_open_change(state, held, id, now))
    }

    /// Whether an instance without a claim may yet get one: its launch is not recorded, or it is to be
    /// adopted. EC2 must have been read since, and show it as another's or not at all.
    fn may_become_ours(&self, state: &State, id: &InstanceId, held: &Held, now: Timestamp) -> bool {
        if self.view.claim_of_instance(id).is_some() {
            return true;
        }
        if let Some(shown) = self.cloud.get(id) {
            return self.is_ours(shown) && !shown.state.is_gone();
        }
        let waited = now.duration_since(held.received_at) >= SETTLES;
        let mut launches = state.intents.values();
        !waited
            || launches.any(|intent| intent.created_at <= held.received_at)
            || !self.cloud.is_read_since(held.received_at)
    }

    /// Whether EC2 does not show yet what an event tells of a claim's instance.
    fn is_open_change(&self, state: &State, held: &Held, id: &InstanceId, now: Timestamp) -> bool {
        let Some((_, claim)) = state.claim_of_instance(id) else { return false };
        let runs = self.cloud.get(id).is_none_or(|instance| {
            matches!(instance.state, InstanceState::Pending | InstanceState::Running)
        });
        runs && !claim.is_leaving() && now.duration_since(held.received_at) < SETTLES
    }

    /// Ends what the queue told of hibernation once EC2 shows that the instance is back. The node's agent,
    /// where there is one, says so sooner.
    pub(super) fn end_hibernations(&mut self, state: &State, now: Timestamp) {
        let told = state.notices.iter().filter(|(id, kinds)| {
            let told = kinds.get(&NoticeKind::SpotHibernate);
            let told = told.filter(|record| record.source == NoticeSource::Queue);
            let runs =
                || self.cloud.get(id).map(|shown| shown.state) == Some(InstanceState::Running);
            told.is_some_and(|record| {
                self.cloud.is_read_since(after(record.recorded_at, STALE_AFTER)) && runs()
            })
        });
        let told: Vec<InstanceId> = told.map(|(id, _)| id.clone()).collect();
        for instance in told {
            let kind = NoticeKind::SpotHibernate;
            self.propose(Change::WithdrawNotice { instance, kind }, now);
        }
    }

    /// Takes out of the log what the queue put there and now calls off. What a node's agent reads itself, it
    /// withdraws itself.
    fn withdraw_queued(&mut self, state: &State, off: &Notice, now: Timestamp) {
        if calls_off(state, off) {
            let (instance, kind) = (off.instance.clone(), off.kind);
            self.agents.noticed.remove(&(instance.clone(), kind));
            self.propose(Change::WithdrawNotice { instance, kind }, now);
        }
    }

    fn propose_queued(&mut self, state: &State, notice: &Notice, now: Timestamp) {
        let Some((_, claim)) = state.claim_of_instance(&notice.instance) else { return };
        if state.knows_of(notice, now) {
            return;
        }
        let node = claim.node.clone();
        let change = Change::RecordNotice {
            node: node.clone(),
            notice: notice.clone(),
            unavailable: self.shunned(state, notice, now),
            source: NoticeSource::Queue,
            by_issue: false,
            lasts: false,
        };
        if self.propose(change, now)
            && let Some(node) = node
        {
            self.tell_notice(&node, notice, now);
        }
    }
}

/// Whether an event calls off what is in the log.
fn calls_off(state: &State, off: &Notice) -> bool {
    let record = state.notices.get(&off.instance).and_then(|kinds| kinds.get(&off.kind));
    record.is_some_and(|record| record.source == NoticeSource::Queue && ends(off, &record.notice))
}

/// Whether an event calls off what another told: the same, of the same date, and not told since. Where
/// dates differ it may be one of two for the instance.
fn ends(off: &Notice, told: &Notice) -> bool {
    let same = off.instance == told.instance && off.kind == told.kind;
    let dated = off.deadline.is_none() || off.deadline == told.deadline;
    same && dated && told.issued_at <= off.issued_at
}

/// What an event tells of each instance. Maintenance may be long under way and still go on, unless its
/// end is told.
fn notices_of(event: &QueueEvent, now: Timestamp) -> Vec<Notice> {
    let Some((kind, deadline)) = event.notice else { return Vec::new() };
    let end = match kind {
        NoticeKind::Maintenance => event.until,
        _ => Some(deadline.unwrap_or(event.at)),
    };
    if !event.called_off && end.is_some_and(|end| now.duration_since(end) > STALE_AFTER) {
        return Vec::new();
    }
    let notice = |instance: &InstanceId| Notice {
        kind,
        instance: instance.clone(),
        boot: BootId::default(),
        deadline,
        detected_at: now,
        issued_at: Some(event.at),
    };
    event.instances.iter().map(notice).collect()
}
