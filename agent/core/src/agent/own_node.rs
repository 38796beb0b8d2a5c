//! Whether the Node of the agent's name is its own.

use drover_common::call::{Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Target};
use jiff::SignedDuration;

use super::{Agent, CallKey, Effect, Fact};
use crate::moment::Moment;
use crate::node;

/// What a read told counts for so long, where no watch tells more: reads are a second apart, and each may
/// take three.
const READ_HOLDS: SignedDuration = SignedDuration::from_secs(5);

impl Agent {
    pub(super) fn owns_node(&mut self) -> bool {
        let foreign = self
            .node
            .as_ref()
            .filter(|node| !node::is_of(node, self.instance.as_ref()))
            .map(|node| node.spec.provider_id.clone());
        let Some(provider_id) = foreign else {
            self.told_foreign = false;
            return true;
        };
        if !std::mem::replace(&mut self.told_foreign, true) {
            self.tell(Fact::ForeignNode { provider_id });
        }
        false
    }

    /// Whether the Node was seen. If not, it's read: by now its name may be another instance's.
    pub(super) fn has_seen_node(&mut self, now: Moment) -> bool {
        if self.node.is_none() {
            self.read_own_node(now);
        }
        self.node.is_some() && !self.node_suspect
    }

    /// Reads a Node that a patch found to be another.
    pub(super) fn decide_read(&mut self, now: Moment) {
        if self.node_suspect {
            self.read_own_node(now);
        }
    }

    /// Whether the Node is known to be as it's known.
    pub(super) fn is_node_fresh(&self, now: Moment) -> bool {
        let read = self.node_read_at.is_some_and(|at| !now.is_past(at, READ_HOLDS));
        !self.node_suspect && (self.node_fresh || read)
    }

    pub(super) fn take_read_failure(&mut self, failure: KubernetesFailure) {
        if failure.kind == KubernetesFailureKind::NotFound {
            self.lose_node();
        } else if !std::mem::replace(&mut self.told_unread, true) {
            self.tell(Fact::NodeUnread(failure));
        }
    }

    pub(super) fn read_own_node(&mut self, now: Moment) {
        if let Some(attempt) = self.read_node.start(now) {
            let target = Target::cluster(Kind::Node, self.identity.node.as_str());
            let call = KubernetesCall::Get { target };
            self.effects.push(Effect::Call(CallKey::ReadNode(attempt), call));
        }
    }
}
