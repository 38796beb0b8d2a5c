//! Karpenter's lease: only its holder drives the cluster.
//!
//! The leader group holds it under one name, so that a failover inside the group does not wait for
//! it; the Raft leader renews it. Lost to another holder means observe only.

use drover_common::call::{Call, Kind, KubernetesCall, KubernetesFailureKind, Outcome, Target};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Control;
use super::calls::CallKey;
use super::settings::LeaseSettings;

/// What is known of the lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    held_until: Option<Timestamp>,
    other_holder: Option<String>,
    /// `None`: not read, or changed by someone else since.
    seen: Option<Seen>,
    next_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
enum Seen {
    Absent,
    Present { resource_version: String, transitions: i64, ours: bool, free: bool },
}

impl Lease {
    pub(super) fn is_held(&self, settings: Option<&LeaseSettings>, now: Timestamp) -> bool {
        settings.is_none() || self.held_until.is_some_and(|until| now < until)
    }

    pub(super) fn describe(&self, settings: Option<&LeaseSettings>, now: Timestamp) -> String {
        match (settings, &self.other_holder) {
            (None, _) => "disabled".to_owned(),
            (Some(_), _) if self.is_held(settings, now) => "held".to_owned(),
            (Some(_), Some(holder)) => format!("held by {holder}"),
            (Some(_), None) => "unknown".to_owned(),
        }
    }

    fn read(&mut self, object: &Value, settings: &LeaseSettings, now: Timestamp) {
        let spec = |field: &str| object.pointer(&format!("/spec/{field}"));
        let holder = spec("holderIdentity").and_then(Value::as_str).unwrap_or_default();
        let renewed = spec("renewTime").and_then(Value::as_str).and_then(|t| t.parse().ok());
        let seconds = spec("leaseDurationSeconds").and_then(Value::as_i64).unwrap_or(15);
        let ends = renewed.map(|renewed| after(renewed, SignedDuration::from_secs(seconds)));
        let ours = holder == settings.identity;
        let free = holder.is_empty() || ends.is_none_or(|ends| ends <= now);
        self.seen = Some(Seen::Present {
            resource_version: object
                .pointer("/metadata/resourceVersion")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            transitions: spec("leaseTransitions").and_then(Value::as_i64).unwrap_or(0),
            ours,
            free,
        });
        if ours {
            self.held_until = ends;
            self.other_holder = None;
        } else {
            self.held_until = None;
            self.other_holder = (!holder.is_empty()).then(|| holder.to_owned());
        }
    }
}

impl Control {
    pub(super) fn keep_lease(&mut self, now: Timestamp) {
        let Some(settings) = self.settings.lease.clone() else { return };
        if self.lease.next_at.is_some_and(|at| now < at) {
            return;
        }
        let target =
            Target::namespaced(Kind::Lease, settings.namespace.clone(), settings.name.clone());
        let call = match &self.lease.seen {
            Some(Seen::Absent) => KubernetesCall::Create {
                target,
                object: json!({
                    "apiVersion": Kind::Lease.api_version(),
                    "kind": "Lease",
                    "metadata": {"name": settings.name, "namespace": settings.namespace},
                    "spec": spec_of(&settings, now, Some(0)),
                }),
            },
            Some(Seen::Present { resource_version, transitions, ours, free }) if *ours || *free => {
                let transitions = (!ours).then(|| transitions.saturating_add(1));
                KubernetesCall::MergePatch {
                    target,
                    status: false,
                    patch: json!({
                        "metadata": {"resourceVersion": resource_version},
                        "spec": spec_of(&settings, now, transitions),
                    }),
                }
            }
            _ => KubernetesCall::Get { target },
        };
        if self.calls.call(CallKey::Lease, Call::Kubernetes(call), now) {
            self.lease.sent_at = Some(now);
        }
    }

    pub(super) fn take_lease_answer(&mut self, outcome: &Outcome, now: Timestamp) {
        let Some(settings) = self.settings.lease.clone() else { return };
        let sent_at = self.lease.sent_at.take().unwrap_or(now);
        let was_write = matches!(
            self.lease.seen,
            Some(
                Seen::Absent | Seen::Present { ours: true, .. } | Seen::Present { free: true, .. }
            )
        );
        match outcome {
            Outcome::Kubernetes(Ok(object)) => {
                self.lease.read(object, &settings, now);
                if was_write && self.lease.held_until.is_some() {
                    // Counted from the request: the server may have taken it any time since.
                    self.lease.held_until = Some(after(sent_at, settings.duration));
                    self.lease.next_at = Some(after(sent_at, settings.renew_every));
                } else if self.lease.held_until.is_some()
                    || matches!(self.lease.seen, Some(Seen::Present { free: true, .. }))
                {
                    self.lease.next_at = None;
                } else {
                    // Someone else holds it: look again soon.
                    self.lease.seen = None;
                    self.lease.next_at = Some(after(now, SignedDuration::from_secs(2)));
                }
            }
            Outcome::Kubernetes(Err(failure)) => {
                self.lease.seen = match failure.kind {
                    KubernetesFailureKind::NotFound => Some(Seen::Absent),
                    _ => None,
                };
                self.lease.next_at = None;
            }
            Outcome::Ec2(_) => {}
        }
    }
}

fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// The lease's spec; `transitions` is given when the holder changes.
fn spec_of(settings: &LeaseSettings, now: Timestamp, transitions: Option<i64>) -> Value {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let mut spec = json!({
        "holderIdentity": settings.identity,
        "leaseDurationSeconds": settings.duration.as_secs(),
        "renewTime": time,
    });
    if let (Some(transitions), Some(spec)) = (transitions, spec.as_object_mut()) {
        spec.insert("acquireTime".to_owned(), json!(time));
        spec.insert("leaseTransitions".to_owned(), json!(transitions));
    }
    spec
}
