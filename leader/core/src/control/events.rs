//! Events on objects, with Karpenter's reasons, each at most once in two minutes.

use std::collections::BTreeMap;

use drover_common::call::{Call, Kind};
use drover_common::cluster::ObjectKey;
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::news::Telling;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::calls::CallKey;
use super::intent::short_hash;

/// Karpenter's span in which an event is not repeated.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// Most events made in one such span: a storm of them helps nobody.
const MOST: usize = 500;

/// Who tells. Which replica leads is nothing that people have to know.
const WHO: &str = "drover";

/// Events made lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    made: BTreeMap<String, Timestamp>,
}

impl Recorder {
    /// Whether no more are made for now.
    fn is_full(&self, now: Timestamp) -> bool {
        let lately = self.made.values().filter(|at| now.duration_since(**at) < REPEAT_AFTER);
        self.made.len() >= MOST && lately.count() >= MOST
    }
}

impl Control {
    /// Whether events are made now; what is left out is not made later.
    pub(super) fn makes_events(&self, now: Timestamp) -> bool {
        self.may_act(now) && !self.events.is_full(now)
    }

    pub(super) fn node_event(
        &mut self,
        node: &NodeName,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) {
        let Some(object) = self.view.nodes().get(node).cloned() else { return };
        let regarding = Telling {
            kind: Kind::Node,
            namespace: "",
            name: node.as_str(),
            uid: &object.metadata.uid,
            controller: WHO,
            instance: WHO,
        };
        self.event(&regarding, reason, note, warning, now);
    }

    pub(super) fn claim_event(
        &mut self,
        claim: &NodeClaimName,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) {
        let Some(object) = self.view.claims().get(claim).cloned() else { return };
        let regarding = Telling {
            kind: Kind::NodeClaim,
            namespace: "",
            name: claim.as_str(),
            uid: object.metadata.uid.as_deref().unwrap_or_default(),
            controller: WHO,
            instance: WHO,
        };
        self.event(&regarding, reason, note, warning, now);
    }

    pub(super) fn pod_event(
        &mut self,
        pod: &ObjectKey,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) {
        let Some(object) = self.view.pod(pod).cloned() else { return };
        let regarding = Telling {
            kind: Kind::Pod,
            namespace: &pod.namespace,
            name: &pod.name,
            uid: &object.metadata.uid,
            controller: WHO,
            instance: WHO,
        };
        self.event(&regarding, reason, note, warning, now);
    }

    fn event(
        &mut self,
        regarding: &Telling<'_>,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) {
        if !self.may_act(now) {
            return;
        }
        let recent = &mut self.events.made;
        recent.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        let identity = short_hash(&[regarding.uid, reason, note], 10);
        let name = format!("{}.{identity}.{:x}", regarding.name, now.as_millisecond());
        if recent.len() >= MOST || recent.contains_key(&identity) {
            return;
        }
        recent.insert(identity, now);
        let call = regarding.event(&name, reason, note, warning, now);
        self.calls.call(CallKey::Event(name), Call::Kubernetes(call), now);
    }
}
