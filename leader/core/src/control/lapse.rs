//! Notices that nobody is left to withdraw.
//!
//! What an agent tells lasts as long as it is told, for weeks if need be, and nothing goes through the log meanwhile: an
//! agent that tells of it no more withdraws it. One that has fallen silent does not.

use drover_common::id::InstanceId;
use drover_common::protocol::NoticeKind;
use jiff::Timestamp;

use super::Control;
use crate::command::Change;
use crate::state::{NoticeRecord, State};

impl Control {
    /// Withdraws notices whose time is over and whose agents have been silent for as long as a notice is kept.
    pub(super) fn lapse_notices(&mut self, state: &State, now: Timestamp) {
        let Some(reign) = self.reign else { return };
        let told_at = |record: &NoticeRecord| {
            record.node.as_ref().and_then(|node| self.heard_at(node)).unwrap_or(reign.since)
        };
        let records = state.notices.iter().flat_map(|(instance, kinds)| {
            kinds.iter().map(move |(kind, record)| (instance, *kind, record))
        });
        let lapsed: Vec<(InstanceId, NoticeKind)> = records
            .filter(|(_, _, record)| record.lasts && record.has_lapsed(told_at(record), now))
            .map(|(instance, kind, _)| (instance.clone(), kind))
            .collect();
        for (instance, kind) in lapsed {
            self.agents.noticed.remove(&(instance.clone(), kind));
            self.propose(Change::WithdrawNotice { instance, kind }, now);
        }
    }
}
