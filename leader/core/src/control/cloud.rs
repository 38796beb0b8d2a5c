//! What EC2 showed of the cluster's instances, and proof that one is absent.

use std::collections::BTreeMap;

use drover_common::call::Call;
use drover_common::ec2::{Ec2Call, Instance, InstanceQuery, InstanceState, Tags};
use drover_common::id::InstanceId;
use drover_common::labels;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::calls::CallKey;
use crate::state::{ClaimRecord, State};

/// How often instances are read while one is being terminated, or something happened to one.
const TERMINATION_POLL: SignedDuration = SignedDuration::from_secs(2);

/// The last read of all instances.
#[derive(Clone, Debug, Default)]
pub(super) struct CloudView {
    instances: BTreeMap<InstanceId, Instance>,
    read_at: Option<Timestamp>,
    /// When the last read that was answered was asked for.
    read_as_of: Option<Timestamp>,
    asked_at: Option<Timestamp>,
    /// Instances of claims that a read did not show, and the first read that did not.
    missing_since: BTreeMap<InstanceId, Timestamp>,
    /// When the last read that did not show them was asked for.
    missing_at: BTreeMap<InstanceId, Timestamp>,
}

impl CloudView {
    /// Whether EC2 was read since this leader began.
    pub(super) fn is_read(&self) -> bool {
        self.read_at.is_some()
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// Whether all instances were read by a call that was made after `since`.
    pub(super) fn is_read_since(&self, since: Timestamp) -> bool {
        self.read_as_of.is_some_and(|at| at > since)
    }

    /// Takes in a read of all instances.
    pub(super) fn record_all(&mut self, state: &State, read: Vec<Instance>, now: Timestamp) {
        self.instances = read.into_iter().map(|i| (i.instance.clone(), i)).collect();
        self.read_at = Some(now);
        let asked_at = self.asked_at.unwrap_or(now);
        self.read_as_of = Some(asked_at);
        let instances = &self.instances;
        self.missing_since.retain(|id, _| !instances.contains_key(id));
        self.missing_at.retain(|id, _| !instances.contains_key(id));
        for id in state.instances.keys().filter(|id| !instances.contains_key(id)) {
            self.missing_since.entry(id.clone()).or_insert(now);
            self.missing_at.insert(id.clone(), asked_at);
        }
    }

    /// Takes in a read of single instances.
    pub(super) fn record_some(&mut self, read: Vec<Instance>) {
        for instance in read {
            self.missing_since.remove(&instance.instance);
            self.missing_at.remove(&instance.instance);
            self.instances.insert(instance.instance.clone(), instance);
        }
    }

    /// Whether two reads, at least `interval` apart, both did not show it.
    pub(super) fn is_missing_twice(&self, id: &InstanceId, interval: SignedDuration) -> bool {
        match (self.missing_since.get(id), self.missing_at.get(id)) {
            (Some(first), Some(last)) => last.duration_since(*first) >= interval,
            _ => false,
        }
    }
}

impl Control {
    /// Reads all instances of the cluster: at once, then by interval, faster while some are ending or are
    /// said to.
    pub(super) fn read_instances(&mut self, state: &State, now: Timestamp) {
        let hurries = !state.terminations.is_empty() || self.queue_wants_read(state, now);
        let interval = if hurries { TERMINATION_POLL } else { self.settings.instance_refresh };
        let due = self.cloud.asked_at.is_none_or(|at| now.duration_since(at) >= interval);
        if !due {
            return;
        }
        let query = InstanceQuery { instances: Vec::new(), tags: self.cluster_tags() };
        let call = Call::Ec2(Ec2Call::DescribeInstances(query));
        if self.calls.call(CallKey::DescribeInstances, call, now) {
            self.cloud.asked_at = Some(now);
        }
    }

    /// What EC2 shows of a claim's instance. That it is off says nothing of one whose agent was heard after that was read:
    /// it may have come back from hibernation.
    pub(super) fn shown(&self, record: &ClaimRecord) -> Option<&Instance> {
        let shown = self.cloud.get(&record.instance.as_ref()?.id)?;
        let is_off = matches!(shown.state, InstanceState::Stopping | InstanceState::Stopped);
        let heard_at = record.node.as_ref().and_then(|node| self.agents.seen_at(node));
        let is_old = is_off && heard_at.is_some_and(|at| !self.cloud.is_read_since(at));
        (!is_old).then_some(shown)
    }

    /// The tags by which this cluster's instances are found: Karpenter's.
    fn cluster_tags(&self) -> Tags {
        Tags::from([
            (labels::NODEPOOL.to_owned(), "*".to_owned()),
            (labels::CLUSTER_NAME_TAG.to_owned(), self.settings.cluster.name.clone()),
        ])
    }

    /// Whether an instance is this cluster's: its uid tag says so. An instance without one was
    /// launched by Karpenter; it is ours only through a NodeClaim.
    pub(super) fn is_ours(&self, instance: &Instance) -> bool {
        let uid = self.cluster_uid();
        uid.is_some() && instance.tags.get(labels::CLUSTER_UID_TAG) == uid.as_ref()
    }
}
