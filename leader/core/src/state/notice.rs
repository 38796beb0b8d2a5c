//! Notices that agents read.

use drover_common::id::{NodeClaimName, NodeName};
use drover_common::protocol::Notice;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Applied, State, seconds_between};
use crate::command::UnavailableOffering;
use crate::journal::Decision;

/// Seconds a notice is kept after its deadline (or its detection, where there is none): an instance
/// is gone by then, or the notice was withdrawn.
const KEPT_SECONDS: i64 = 3_600;

/// A notice and who read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRecord {
    /// The Node whose agent read it.
    pub node: NodeName,
    /// The notice.
    pub notice: Notice,
    /// When it was proposed.
    pub recorded_at: Timestamp,
}

impl NoticeRecord {
    pub(super) fn is_over(&self, at: Timestamp) -> bool {
        let end = self.notice.deadline.unwrap_or(self.notice.detected_at).max(self.recorded_at);
        seconds_between(end, at) > KEPT_SECONDS
    }
}

impl State {
    pub(super) fn record_notice(
        &mut self,
        index: u64,
        at: Timestamp,
        node: &NodeName,
        notice: &Notice,
        unavailable: Option<&UnavailableOffering>,
    ) -> Applied {
        let known = self.notices.get(&notice.instance).and_then(|kinds| kinds.get(&notice.kind));
        if known.is_some_and(|record| {
            record.notice.boot == notice.boot && record.notice.deadline == notice.deadline
        }) {
            return Applied::Unchanged;
        }
        let record = NoticeRecord { node: node.clone(), notice: notice.clone(), recorded_at: at };
        self.notices.entry(notice.instance.clone()).or_default().insert(notice.kind, record);
        if let Some(offering) = unavailable {
            self.record_unavailable(at, std::slice::from_ref(offering));
        }
        let claim = self.instances.get(&notice.instance).map(|name| name.to_string());
        self.journal.write(Decision {
            index,
            at,
            verb: "record-notice".to_owned(),
            subjects: [Some(node.to_string()), Some(notice.instance.to_string()), claim]
                .into_iter()
                .flatten()
                .collect(),
            inputs: notice
                .deadline
                .map(|deadline| format!("deadline {deadline}"))
                .into_iter()
                .collect(),
            why: format!("the node's agent read a {:?} notice", notice.kind),
            ..Decision::default()
        });
        Applied::Done
    }

    /// The hard notice in force for a claim's instance: EC2 will take or stop it.
    pub fn hard_notice(&self, claim: &NodeClaimName) -> Option<&NoticeRecord> {
        let instance = self.claims.get(claim)?.instance.as_ref()?;
        self.notices.get(&instance.id)?.values().find(|record| record.notice.kind.ends_instance())
    }
}
