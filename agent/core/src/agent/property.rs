//! Any sequence of inputs: nothing panics, and nothing is done to a node without a reason that the
//! test finds by itself.

use drover_common::call::{Kind, KubernetesFailureKind};
use drover_common::cluster::ClusterObject;
use drover_common::labels;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::notice::Answer;

#[derive(Clone, Debug)]
enum Happening {
    Instance(bool),
    Notice(NoticePath, Option<String>),
    Node { disrupted: Option<Marks>, foreign: bool, cordoned: bool },
    Pod(u8, bool),
    Stale(bool),
    Directive(Option<i64>),
    Answer(bool, usize),
    Wait(i64),
}

fn happenings() -> impl Strategy<Value = Happening> {
    let body = prop_oneof![
        2 => Just(None),
        1 => ".{0,30}".prop_map(Some),
        1 => Just(Some("{\"action\":\"terminate\",\"time\":\"not a time\"}".to_owned())),
        1 => (0..200_i64).prop_map(|lead| {
            Some(json!({"action": "terminate", "time": at(lead * 1000).to_string()}).to_string())
        }),
        1 => Just(Some(json!({"noticeTime": at(0).to_string()}).to_string())),
        2 => (-3_600..5_400_i64).prop_map(|start| {
            let start = at(start * 1000).strftime("%d %b %Y %H:%M:%S GMT").to_string();
            Some(json!([{"NotBefore": start, "Code": "system-reboot", "EventId": "instance-event-1",
                "State": "active"}]).to_string())
        }),
    ];
    let path = prop::sample::select(NoticePath::ALL.to_vec());
    prop_oneof![
        1 => any::<bool>().prop_map(Happening::Instance),
        2 => (path, body).prop_map(|(path, body)| Happening::Notice(path, body)),
        2 => (prop::option::of(marks()), any::<bool>(), any::<bool>()).prop_map(
            |(disrupted, foreign, cordoned)| Happening::Node { disrupted, foreign, cordoned }
        ),
        2 => (0..5_u8, any::<bool>()).prop_map(|(pod, there)| Happening::Pod(pod, there)),
        1 => any::<bool>().prop_map(Happening::Stale),
        1 => prop::option::of(0..300_i64).prop_map(Happening::Directive),
        4 => (any::<bool>(), 0..8_usize).prop_map(|(ok, which)| Happening::Answer(ok, which)),
        3 => (0..20_000_i64).prop_map(Happening::Wait),
    ]
}

/// What a disrupted Node bears: by when, and why.
type Marks = (Option<i64>, &'static str);

fn marks() -> impl Strategy<Value = Marks> {
    let reasons = vec!["spot-terminate", "maintenance", "Expiration", "of late"];
    (prop::option::of(0..300_i64), prop::sample::select(reasons))
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

fn node(disrupted: Option<Marks>, foreign: bool, cordoned: bool) -> Value {
    let mut node = json!({
        "metadata": {"name": "n", "labels": {}, "annotations": {}},
        "spec": {"providerID": if foreign { "aws:///a/i-2" } else { "aws:///a/i-1" },
            "unschedulable": cordoned},
    });
    if let Some((deadline, reason)) = disrupted {
        let annotations = &mut node["metadata"]["annotations"];
        *annotations = json!({labels::DISRUPTION: "d-1", labels::DISRUPTION_REASON: reason});
        if let Some(seconds) = deadline {
            annotations[labels::DISRUPTION_DEADLINE] = json!(at(seconds * 1000).to_string());
        }
        node["spec"]["taints"] = json!([{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]);
    }
    node
}

/// Seconds of grace that every pod of this world has: Kubernetes' default.
const GRACE: i64 = 30;

/// The test's own record of what could justify an act.
#[derive(Default)]
struct Grounds {
    instance_known: bool,
    spot_told: bool,
    directive_told: bool,
    node: Option<Value>,
    /// When it was read last: no watch of this world's Node is ever complete.
    read_at: Option<Timestamp>,
    /// When maintenance begins, of all that was told of any.
    maintenance: Vec<Timestamp>,
    /// The last moments for pods that spot notices left, all that were told.
    spot_ends: Vec<Timestamp>,
    /// What disrupted Nodes bore; a directive's own word counts for nothing.
    directed_ends: Vec<Timestamp>,
}

impl Grounds {
    fn hear(&mut self, path: NoticePath, body: &str, now: Timestamp) {
        let told: Value = serde_json::from_str(body).unwrap_or_default();
        let spot = told["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let start = told[0]["NotBefore"].as_str();
        match (path, spot, start) {
            (NoticePath::SpotAction, Some(time), _) => {
                self.spot_told = true;
                // A time that can't be is taken for two minutes from now, or for half a one.
                let lead = time.duration_since(now).as_millis();
                let lead = if lead < 0 { 30_000 } else { lead.min(120_000) };
                let lead = SignedDuration::from_millis(i64::try_from(lead).unwrap());
                self.spot_ends.push(now + lead - SignedDuration::from_secs(5));
            }
            (NoticePath::Maintenance, _, Some(start)) => {
                let start = jiff::civil::DateTime::strptime("%d %b %Y %H:%M:%S GMT", start);
                let start = start.unwrap().to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
                self.maintenance.push(start);
            }
            _ => {}
        }
    }

    fn has_read(&self, now: Timestamp) -> bool {
        self.read_at.is_some_and(|at| now.duration_since(at) < SignedDuration::from_secs(5))
    }

    fn maintained(&self, now: Timestamp) -> bool {
        self.maintenance.iter().any(|start| start.duration_since(now).as_secs() <= 30 * 60)
    }

    /// No drain may give a pod less than what is left until then. Maintenance has no say in it.
    fn earliest_end(&self) -> Option<Timestamp> {
        self.spot_ends.iter().chain(&self.directed_ends).min().copied()
    }

    /// A pod is given its own grace, or what is left of the time, and at least a second.
    fn judge_grace(&self, call: &KubernetesCall, now: Timestamp) {
        let (given, forced) = match call {
            KubernetesCall::Delete { grace_seconds, .. } => (*grace_seconds, true),
            KubernetesCall::Evict { grace_seconds, .. } => (*grace_seconds, false),
            other => panic!("no drain makes {other:?}"),
        };
        let Some(given) = given else { return assert!(!forced, "a deletion says how long") };
        let end = self.earliest_end().expect("only the end of a pod's time may shorten its grace");
        let left = end.duration_since(now).as_secs();
        assert!(left <= GRACE, "{left} s were left for a pod's {GRACE}: {call:?}");
        assert!(i64::from(given) >= left.clamp(1, GRACE), "{left} s were left: {call:?}");
    }
}

fn judge(effects: &[Effect], grounds: &Grounds, now: Timestamp) {
    let interrupted = grounds.spot_told || grounds.maintained(now);
    for effect in effects {
        let Effect::Call(key, call) = effect else { continue };
        match (key, call) {
            (CallKey::Cordon(_), _) => assert!(interrupted, "cordoned without a notice"),
            (CallKey::Undo(_), _) => panic!("no Node in this world bears a mark of the agent's"),
            // A read does nothing.
            (CallKey::ReadNode(_), _) => {}
            (CallKey::Event(_), call) => {
                let KubernetesCall::Create { target, .. } = call else { panic!("{call:?}") };
                assert_eq!(
                    (target.kind, target.namespace.as_deref()),
                    (Kind::Event, Some("default"))
                );
            }
            (CallKey::Drain(_), call) => {
                let disrupted = grounds.node.as_ref().is_some_and(|node| {
                    node["metadata"]["annotations"][labels::DISRUPTION] == "d-1"
                });
                let directed = grounds.directive_told && disrupted && grounds.has_read(now);
                assert!(interrupted || directed, "drained without a reason");
                grounds.judge_grace(call, now);
            }
        }
    }
}

fn input(
    happening: &Happening,
    grounds: &mut Grounds,
    pending: &mut Vec<CallKey>,
    clock: &mut i64,
) -> Input {
    let cluster = |kind, value| {
        Input::Cluster(ClusterEvent::Applied(ClusterObject::from_json(kind, value).unwrap()))
    };
    match happening {
        Happening::Instance(own) => {
            grounds.instance_known = true;
            Input::Instance(if *own { "i-1".into() } else { "i-9".into() })
        }
        Happening::Notice(path, body) => {
            if grounds.instance_known {
                grounds.hear(*path, body.as_deref().unwrap_or_default(), at(*clock));
            }
            Input::Notice(*path, body.clone().map_or(Answer::Absent, Answer::Body))
        }
        Happening::Node { disrupted, foreign, cordoned } => {
            let node = node(*disrupted, *foreign, *cordoned);
            let deadline = disrupted.and_then(|(deadline, _)| deadline);
            grounds.directed_ends.extend(deadline.map(|seconds| at(seconds * 1000)));
            grounds.node = Some(node.clone());
            cluster(Kind::Node, node)
        }
        Happening::Pod(pod, true) => {
            let name = format!("p{pod}");
            let value = json!({"metadata": {"name": name, "namespace": "d", "uid": name}});
            cluster(Kind::Pod, value)
        }
        Happening::Pod(pod, false) => {
            let key = ObjectKey::new("d", format!("p{pod}"));
            Input::Cluster(ClusterEvent::Deleted(Kind::Pod, key))
        }
        Happening::Stale(true) => Input::Cluster(ClusterEvent::Stale(Kind::Node)),
        Happening::Stale(false) => Input::Cluster(ClusterEvent::Synced(Kind::Pod)),
        Happening::Directive(deadline) => {
            grounds.directive_told = true;
            let deadline = deadline.map(|seconds| at(seconds * 1000));
            Input::Directives(vec![Directive { disruption: "d-1".into(), deadline }])
        }
        Happening::Answer(ok, which) if !pending.is_empty() => {
            let key = pending.remove(which % pending.len());
            let kind = KubernetesFailureKind::Unreachable;
            let failure =
                KubernetesFailure { kind, message: String::new(), retry_after_seconds: None };
            let object = match key {
                CallKey::ReadNode(_) => {
                    if *ok && grounds.node.is_some() {
                        grounds.read_at = Some(at(*clock));
                    }
                    grounds.node.clone().unwrap_or(Value::Null)
                }
                _ => Value::Null,
            };
            Input::Outcome(key, if *ok { Ok(object) } else { Err(failure) })
        }
        Happening::Answer(..) => Input::Tick,
        Happening::Wait(milliseconds) => {
            *clock += milliseconds;
            Input::Tick
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_done_without_grounds(happenings in prop::collection::vec(happenings(), 0..80)) {
        let identity = Identity { node: "n".into(), boot: "b".into() };
        let mut agent = Agent::new(identity, None, SignedDuration::from_secs(10));
        let (mut grounds, mut pending, mut clock) = (Grounds::default(), Vec::new(), 0);
        for happening in &happenings {
            clock += 10;
            let input = input(happening, &mut grounds, &mut pending, &mut clock);
            let effects = agent.step(input, at(clock));
            judge(&effects, &grounds, at(clock));
            pending.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Call(key, _) => Some(key),
                _ => None,
            }));
        }
    }
}
