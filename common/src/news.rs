//! What people are told of notices and drains: events on the Node. Leaders tell what agents report; an agent
//! that no leader hears tells by itself, in the same words.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::call::{Kind, KubernetesCall, Target};
use crate::protocol::{DrainPhase, DrainReport, Notice, NoticeKind};

/// A drain that is not done after so long has pods that will not go.
const BLOCKED_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// How soon it is told again that a drain does not go on, whoever is left by then.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// Pods that one event names.
const MOST_NAMED: usize = 5;
/// Characters that Kubernetes allows for a note and for who tells it.
const LONGEST_NOTE: usize = 1_000;
const LONGEST_INSTANCE: usize = 128;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Karpenter's reason where it has one.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
    /// Whether it is a warning.
    pub warning: bool,
}

impl News {
    /// A notice is in force.
    pub fn of_notice(notice: &Notice) -> Self {
        let (reason, words) = words_of(notice.kind);
        let note = match lateness(notice) {
            None => words.to_owned(),
            Some(late) => {
                format!("{words}, read {:.1} s after it was issued", late.as_secs_f64())
            }
        };
        Self { reason, note, warning: true }
    }

    /// A drain is done.
    pub fn of_drained(drain: &DrainReport) -> Self {
        let DrainReport { evicted, forced, clipped, .. } = drain;
        let note = format!(
            "Drained: {evicted} pods evicted, {forced} deleted past a budget, {clipped} with less than their grace"
        );
        Self { reason: "Drained", note, warning: *forced > 0 }
    }

    /// Pods do not go: those of a drain's that `stay`, as `namespace/name`. `None` if there are none; those
    /// that are on their way out already are waited for, and no news.
    pub fn of_blocked(drain: &DrainReport, stay: impl Fn(&str) -> bool) -> Option<Self> {
        let staying: Vec<String> = drain
            .remaining
            .iter()
            .filter(|(pod, _)| stay(pod))
            .map(|(pod, reason)| format!("{pod} ({reason})"))
            .collect();
        let note = format!(
            "Failed to drain node, {} pods are waiting to be evicted: {}",
            staying.len(),
            first_of(&staying)
        );
        (!staying.is_empty()).then_some(Self { reason: "FailedDraining", note, warning: true })
    }

    /// These pods are still there when the time of a notice has run out, each as `namespace/name`.
    pub fn of_left(pods: &[String]) -> Self {
        let (count, named) = (pods.len(), first_of(pods));
        let note = format!("The time of its notice ran out with {count} pods left: {named}");
        Self { reason: "FailedDraining", note, warning: true }
    }
}

/// How long after its issue a notice was read, where its source says when that was.
pub fn lateness(notice: &Notice) -> Option<SignedDuration> {
    let issued_at = notice.issued_at?;
    Some(notice.detected_at.duration_since(issued_at).max(SignedDuration::ZERO))
}

/// What of a drain's progress is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is done.
    Drained,
    /// It has taken a while: pods may not go.
    Lasting,
}

/// What is remembered of a drain that is told of.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    drain: Option<DrainReport>,
    since: Option<Timestamp>,
    told_blocked: Option<Timestamp>,
}

impl Progress {
    /// Of a drain that is found under way, or done.
    pub fn found(drain: Option<DrainReport>, now: Timestamp) -> Self {
        let since = drain.is_some().then_some(now);
        Self { drain, since, told_blocked: None }
    }

    /// How it stood before.
    pub fn drain(&self) -> Option<&DrainReport> {
        self.drain.as_ref()
    }

    /// Takes in how it stands now; returns what that is worth telling.
    pub fn take(&mut self, drain: Option<&DrainReport>, now: Timestamp) -> Option<Stage> {
        let before = self.drain.take();
        self.drain = drain.cloned();
        let Some(drain) = drain else {
            self.since = None;
            return None;
        };
        let before = before.filter(|before| before.disruption == drain.disruption);
        let since = before.as_ref().and(self.since).unwrap_or(now);
        self.since = Some(since);
        let is_past = |at: Timestamp, pause| now.duration_since(at) >= pause;
        let was_done = before.is_some_and(|before| before.phase == DrainPhase::Drained);
        match drain.phase {
            DrainPhase::Drained => (!was_done).then_some(Stage::Drained),
            DrainPhase::Draining => {
                let due = self.told_blocked.is_none_or(|at| is_past(at, REPEAT_AFTER));
                (due && is_past(since, BLOCKED_AFTER)).then_some(Stage::Lasting)
            }
        }
    }

    /// That pods do not go was told.
    pub fn told_blocked(&mut self, now: Timestamp) {
        self.told_blocked = Some(now);
    }
}

/// What an event is about, and who tells it.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// The kind of the object.
    pub kind: Kind,
    /// Its namespace; empty where it has none.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// The component that tells it.
    pub controller: &'a str,
    /// Which one of them.
    pub instance: &'a str,
}

impl Telling<'_> {
    /// The call that makes an event of this name. Events on what has no namespace are in `default`.
    pub fn event(
        &self,
        name: &str,
        reason: &str,
        note: &str,
        warning: bool,
        now: Timestamp,
    ) -> KubernetesCall {
        let namespace = if self.namespace.is_empty() { "default" } else { self.namespace };
        let note: String = note.chars().take(LONGEST_NOTE).collect();
        let instance: String = self.instance.chars().take(LONGEST_INSTANCE).collect();
        let second = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let object = json!({
            "apiVersion": Kind::Event.api_version(),
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "firstTimestamp": second,
            "lastTimestamp": second,
            "count": 1,
            "source": {"component": self.controller},
            "reportingComponent": self.controller,
            "reportingInstance": instance,
            "action": reason,
            "reason": reason,
            "type": if warning { "Warning" } else { "Normal" },
            "message": note,
            "involvedObject": {
                "apiVersion": self.kind.api_version(),
                "kind": self.kind.endpoint().kind,
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
            },
        });
        KubernetesCall::Create { target: Target::namespaced(Kind::Event, namespace, name), object }
    }
}

/// The first names of a list, with an ellipsis where there are more.
pub fn first_of(names: &[String]) -> String {
    let more = if names.len() > MOST_NAMED { ", …" } else { "" };
    format!("{}{more}", names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", "))
}

/// What is told of a notice on its Node. The reasons are Karpenter's where it knows the kind.
fn words_of(kind: NoticeKind) -> (&'static str, &'static str) {
    match kind {
        NoticeKind::SpotTerminate | NoticeKind::SpotStop | NoticeKind::SpotHibernate => {
            ("SpotInterrupted", "Spot interruption warning was triggered")
        }
        NoticeKind::Rebalance => {
            ("SpotRebalanceRecommendation", "Spot rebalance recommendation was triggered")
        }
        NoticeKind::ReservationReclaim => (
            "CapacityReservationInterrupted",
            "Capacity reservation interruption warning was triggered",
        ),
        NoticeKind::Maintenance => ("InstanceUnhealthy", "Scheduled maintenance was announced"),
        NoticeKind::AutoScaling => {
            ("InstanceTerminating", "The Auto Scaling group terminates the instance")
        }
        NoticeKind::Shutdown => ("InstanceStopping", "The operating system shuts down"),
        NoticeKind::Problem => {
            ("InstanceUnhealthy", "The Node bears a condition that says it is broken")
        }
    }
}
