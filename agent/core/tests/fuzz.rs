//! Whatever IMDS, the kernel, the kubelet, GPUs' exporter, the leaders, the API server and the own disk say: nothing panics, and
//! nothing that is no notice is taken for one.
//!
//! Inputs are the files of `tests/corpus`, mutated, and plain noise. A long run:
//! `PROPTEST_CASES=5000000 cargo test -p drover-agent-core --test fuzz -- --nocapture`. What fails is
//! kept in `tests/fuzz.proptest-regressions` and tried first from then on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the corpus is made of files")]

use std::path::Path;
use std::sync::Arc;

use drover_agent_core::usage::{
    self, ContainerName, ContainerNames, GpuReading, History, KubeletFold, KubeletReading, Lines,
    PodNames, SavedHistory,
};
use drover_agent_core::{
    Agent, Answer, CallKey, Effect, Identity, Input, NoticePath, Saved, eks, imds,
};
use drover_common::call::{Kind, KubernetesCall};
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::protocol::{
    ContainerUsage, Directives, NonceAnswer, PodUsage, ReportAnswer, UsageDigest,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;

fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One change of a text.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index),
    Drop(Index, usize),
    Repeat(Index, usize, usize),
    Insert(Index, Vec<u8>),
    /// A digit becomes a long or a strange number.
    Number(Index, &'static str),
    /// What another file of the corpus goes on with.
    Splice(Index, Index, Index),
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let number = prop::sample::select(vec![
        "18446744073709551616",
        "-1",
        "1e999",
        "0x10",
        "99999999999999999999999",
        "",
        "NaN",
        "00",
    ]);
    let place = any::<Index>;
    prop_oneof![
        (place(), 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        place().prop_map(Mutation::Cut),
        (place(), 1..20_usize).prop_map(|(at, count)| Mutation::Drop(at, count)),
        (place(), 1..40_usize, 1..30_usize)
            .prop_map(|(at, length, times)| { Mutation::Repeat(at, length, times) }),
        (place(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), number).prop_map(|(at, number)| Mutation::Number(at, number)),
        (place(), place(), place()).prop_map(|(at, file, from)| Mutation::Splice(at, file, from)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation], corpus: &[Vec<u8>]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            bytes.push(b'0');
        }
        let length = bytes.len();
        match mutation {
            Mutation::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Drop(at, count) => {
                let from = at.index(length);
                bytes.drain(from..(from + count).min(length));
            }
            Mutation::Repeat(at, count, times) => {
                let from = at.index(length);
                let part = bytes[from..(from + count).min(length)].repeat(*times);
                bytes.splice(from..from, part);
            }
            Mutation::Insert(at, part) => {
                let from = at.index(length);
                bytes.splice(from..from, part.iter().copied());
            }
            Mutation::Number(at, number) => {
                let digits: Vec<usize> =
                    (0..length).filter(|&place| bytes[place].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    let place = digits[at.index(digits.len())];
                    bytes.splice(place..=place, number.bytes());
                }
            }
            Mutation::Splice(at, file, from) => {
                let other = &corpus[file.index(corpus.len())];
                bytes.truncate(at.index(length));
                bytes.extend_from_slice(&other[from.index(other.len())..]);
            }
        }
        bytes.truncate(100_000);
    }
    bytes
}

/// Mutated files of a folder, and noise.
fn inputs(folder: &'static str) -> impl Strategy<Value = String> {
    let files = corpus(folder);
    let known = (any::<Index>(), prop::collection::vec(mutations(), 0..6)).prop_map(
        move |(file, mutations)| mutate(files[file.index(files.len())].clone(), &mutations, &files),
    );
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![9 => known, 1 => noise]
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn agent(saved: Option<Saved>) -> Agent {
    let identity = Identity { node: "n".into(), boot: "b".into() };
    Agent::new(identity, saved, SignedDuration::from_secs(10))
}

/// Without its Node an agent does nothing.
fn own_node() -> ClusterObject {
    let node = serde_json::json!({"metadata": {"name": "n"}});
    ClusterObject::from_json(Kind::Node, node).unwrap()
}

/// Whether a body says, in JSON that anybody reads, that a spot loss is coming.
fn announces_loss(body: &str) -> bool {
    let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { return false };
    let action = body.get("action").and_then(|action| action.as_str());
    let time = body.get("time").and_then(|time| time.as_str());
    matches!(action, Some("terminate" | "stop" | "hibernate"))
        && time.is_some_and(|time| time.trim().parse::<Timestamp>().is_ok())
}

proptest! {
    #[test]
    fn imds(body in inputs("imds")) {
        let loss = imds::spot_action(&body).is_ok();
        prop_assert!(!loss || announces_loss(&body), "{body:?} is no notice");
        let (rebalance, maintenance) = (imds::rebalance(&body), imds::maintenance(&body));
        prop_assert!(u8::from(loss) + u8::from(rebalance.is_ok()) + u8::from(maintenance.is_ok()) < 3);
        let group = imds::is_target_terminated(&body);
        prop_assert!(group != Ok(true) || body.contains("Terminated"));
        let id = imds::instance_id(&body);
        prop_assert!(id.is_err() || body.trim().starts_with("i-"));

        // The same body at every path of a whole agent: it cordons for what is there, and nothing else.
        let mut agent = agent(None);
        agent.step(Input::Instance("i-1".into()), at(0));
        agent.step(Input::Cluster(ClusterEvent::Applied(own_node())), at(0));
        for (second, path) in NoticePath::ALL.into_iter().enumerate() {
            let effects = agent.step(
                Input::Notice(path, Answer::Body(body.clone())),
                at(i64::try_from(second).unwrap()),
            );
            let cordons = effects.iter().any(|effect| matches!(effect, Effect::Call(CallKey::Cordon(_), _)));
            let reason = loss || group == Ok(true) || maintenance.as_ref().is_ok_and(|events| !events.is_empty());
            prop_assert!(!cordons || reason, "cordoned for {body:?}");
        }
    }

    #[test]
    fn eks(body in inputs("eks")) {
        // Both become parts of addresses, and lead nowhere else.
        if let Ok(role) = eks::role(&body) {
            prop_assert!(body.contains(role) && !role.contains(['/', '?', '#', '%', '\\', ' ']), "{role:?}");
            prop_assert!(!matches!(role, "" | "." | ".."), "{role:?}");
        }
        let region = eks::region(&body);
        if let Ok(region) = region {
            prop_assert!(!region.is_empty() && !region.contains(['.', '/', '@', ':', '?', '#']), "{region:?}");
        }
        match eks::credentials(&body) {
            Ok(credentials) => {
                let token = eks::EksToken::sign("c", region.unwrap_or("eu-west-1"), &credentials, at(0));
                // It goes into a header.
                prop_assert!(token.text().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!token.holds(credentials.expires), "it outlives what it was signed by");
                let shown = format!("{credentials:?} {token:?}");
                for secret in ["hidden/secret", "session+token", "k8s-aws"] {
                    prop_assert!(!shown.contains(secret), "{shown}");
                }
            }
            // It is logged.
            Err(error) => prop_assert!(!error.to_string().contains("hidden/secret"), "{error}"),
        }
    }

    #[test]
    fn kernel(text in inputs("kernel")) {
        let _numbers = (
            usage::cpu_usage(&text), usage::limit_periods(&text), usage::inactive_file(&text),
            usage::number(&text), usage::stalled(&text), usage::oom_kills(&text),
            usage::node_cpu_usage(&text),
        );
        if let Ok((total, available)) = usage::available_memory(&text) {
            prop_assert!(total.is_multiple_of(1024) && available.is_multiple_of(1024));
        }
        let _traffic =
            (usage::network_bytes(&text), usage::disk_bytes(&text), usage::io_bytes(&text));
        if let Ok(pods) = usage::pod_network_bytes(&text) {
            // It counts what the node's does, and more.
            let nodes = usage::network_bytes(&text);
            prop_assert!(nodes.map_or_else(
                |unread| unread.field == "interface",
                |nodes| nodes[0] <= pods[0] && nodes[1] <= pods[1],
            ));
        }
        for pid in usage::processes(&text) {
            prop_assert!(pid != 0 && text.lines().any(|line| line.trim_start_matches(['+', '0']) == pid.to_string()));
        }
        let is_container = usage::container_of_directory(&text).is_some();
        prop_assert!(!is_container || !text.contains(['/', ' ']), "{text:?} leads elsewhere");
        if let Some(uid) = usage::pod_uid_of_directory(&text) {
            prop_assert!(!uid.contains(['/', '.']) && uid.len() <= 64, "{uid:?} leads elsewhere");
        }
    }

    #[test]
    fn exposition(text in inputs("exposition"), size in 1..5_000_usize) {
        let names: PodNames = [("d", "web"), ("d", "train")]
            .into_iter()
            .map(|(namespace, name)| (ObjectKey::new(namespace, name), Arc::from(name)))
            .collect();
        let read = |size: usize, now| {
            let (mut lines, mut kubelet) = (Lines::default(), KubeletReading::default());
            for piece in text.as_bytes().chunks(size) {
                lines.feed(piece, |line| kubelet.take(line, &names, now));
            }
            kubelet
        };
        let (mut lines, mut gpus) = (Lines::default(), GpuReading::default());
        lines.feed(text.as_bytes(), |line| gpus.take(line, &names));
        if let Some(usage) = gpus.usage() {
            let pods = names.values().map(|uid| PodUsage { uid: uid.to_string(), ..PodUsage::default() });
            let mut digest = UsageDigest { pods: pods.collect(), ..UsageDigest::default() };
            usage.write(&mut digest);
            let whole = digest.gpu.expect("the node has what there is");
            for gpu in digest.pods.iter().filter_map(|pod| pod.gpu.as_deref()).chain([&whole]) {
                prop_assert!(gpu.busy_permille.is_none_or(|share| share <= 1000));
                prop_assert!((1..=whole.count).contains(&gpu.count));
            }
        }
        let kubelet = read(size, at(0));
        prop_assert_eq!(&kubelet, &read(usize::MAX, at(0)), "it matters how it arrives");
        let mut fold = KubeletFold::default();
        for reading in [kubelet, read(size, at(60)), read(size, at(0))] {
            fold.add(reading);
            let told = fold.usage();
            prop_assert!(told.pods.iter().all(|pod| names.values().any(|uid| **uid == *pod.uid)));
            let _digest = told.complete(None);
        }
    }

    #[test]
    fn protocol_and_disk(text in inputs("protocol")) {
        let now = at(0);
        if let Ok(answer) = serde_json::from_str::<Directives>(&text) {
            let mut agent = agent(None);
            let effects = agent.step(Input::Directives(answer.directives), now);
            // A word of a leader alone does nothing: it makes the agent read its Node.
            let harmless = effects.iter().all(|effect| {
                !matches!(effect, Effect::Call(_, call) if !matches!(call, KubernetesCall::Get { .. }))
            });
            prop_assert!(harmless, "{effects:?}");
        }
        if let Ok(answer) = serde_json::from_str::<ReportAnswer>(&text) {
            agent(None).step(Input::Answered(1, answer), now);
        }
        if let Ok(answer) = serde_json::from_str::<NonceAnswer>(&text) {
            let again = serde_json::to_string(&answer).unwrap();
            prop_assert_eq!(serde_json::from_str::<NonceAnswer>(&again).unwrap(), answer);
        }
        if let Ok(saved) = serde_json::from_str::<Saved>(&text) {
            let own = saved.boot.as_str() == "b" && saved.instance.is_some();
            let effects = agent(Some(saved)).step(Input::Tick, now);
            let acts = effects.iter().any(|effect| matches!(effect, Effect::Call(..)));
            prop_assert!(own || !acts, "a copied disk makes the agent act");
        }
        if let Ok(saved) = serde_json::from_str::<SavedHistory>(&text) {
            let mut history = History::restore(&saved);
            let web = ContainerUsage { name: "web".into(), oom_kills: 1, ..ContainerUsage::default() };
            let name = ContainerName { name: "web".into(), id: None, lasts: true };
            let names = ContainerNames::from([(Arc::from("u"), vec![name])]);
            let pod =
                PodUsage { uid: "u".to_owned(), containers: vec![web], ..PodUsage::default() };
            let mut digest = UsageDigest { pods: vec![pod], ..UsageDigest::default() };
            history.take(&mut digest, &names, now);
            let again: SavedHistory =
                serde_json::from_value(serde_json::to_value(history.save()).unwrap()).unwrap();
            let _kept = History::restore(&again);
        }
    }

    #[test]
    fn objects(text in inputs("objects")) {
        for kind in [Kind::Node, Kind::Pod] {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
            let Ok(object) = ClusterObject::from_json(kind, value) else { continue };
            let mut agent = agent(None);
            agent.step(Input::Instance("i-1".into()), at(0));
            agent.step(Input::Cluster(ClusterEvent::Applied(own_node())), at(0));
            let body = format!("{{\"action\":\"terminate\",\"time\":\"{}\"}}", at(120));
            agent.step(Input::Notice(NoticePath::SpotAction, Answer::Body(body)), at(0));
            agent.step(Input::Cluster(ClusterEvent::Applied(object)), at(1));
            for second in [2, 30, 110, 118, 200] {
                for effect in agent.step(Input::Tick, at(second)) {
                    if let Effect::Call(_, KubernetesCall::Delete { grace_seconds, uid, .. }) = effect {
                        prop_assert!(grace_seconds.is_some_and(|grace| grace >= 1) && uid.is_some());
                    }
                }
            }
        }
    }
}
