//! Events on objects, with Karpenter's reasons, each at most once in two minutes.

use std::collections::BTreeMap;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::cluster::ObjectKey;
use drover_common::id::{NodeClaimName, NodeName};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::intent::short_hash;

/// Karpenter's span in which an event is not repeated.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// Most events made in one such span: a storm of them helps nobody.
const MOST: usize = 500;

/// Events made lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    made: BTreeMap<String, Timestamp>,
}

/// What an event is about.
struct Regarding<'a> {
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

impl Control {
    pub(super) fn node_event(
        &mut self,
        node: &NodeName,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) {
        let Some(object) = self.view.nodes().get(node).cloned() else { return };
        let regarding = Regarding {
            kind: Kind::Node,
            namespace: "",
            name: node.as_str(),
            uid: &object.metadata.uid,
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
        let regarding = Regarding {
            kind: Kind::NodeClaim,
            namespace: "",
            name: claim.as_str(),
            uid: object.metadata.uid.as_deref().unwrap_or_default(),
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
        let regarding = Regarding {
            kind: Kind::Pod,
            namespace: &pod.namespace,
            name: &pod.name,
            uid: &object.metadata.uid,
        };
        self.event(&regarding, reason, note, warning, now);
    }

    fn event(
        &mut self,
        regarding: &Regarding<'_>,
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
        let namespace =
            if regarding.namespace.is_empty() { "default" } else { regarding.namespace };
        // Kubernetes allows 1 kB.
        let note: String = note.chars().take(1_000).collect();
        let event = json!({
            "apiVersion": Kind::Event.api_version(),
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "reportingController": "drover",
            "reportingInstance": "drover",
            "action": reason,
            "reason": reason,
            "type": if warning { "Warning" } else { "Normal" },
            "note": note,
            "regarding": {
                "apiVersion": regarding.kind.api_version(),
                "kind": regarding.kind.endpoint().kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        });
        let call = KubernetesCall::Create {
            target: Target::namespaced(Kind::Event, namespace, name.clone()),
            object: event,
        };
        self.calls.call(CallKey::Event(name), Call::Kubernetes(call), now);
    }
}
