//! An agent's brain on a simulated node, and the little it sees: its IMDS, its Node, its pods.

use drover_agent_core::{Agent, Answer, CallKey, Identity, Input, NoticePath};

pub use drover_agent_core::Effect as Wish;
use drover_common::call::{Kind, KubernetesFailure};
use drover_common::cluster::{ClusterEvent, ClusterObject};
use drover_common::id::{BootId, NodeName};
use drover_common::protocol::{Directive, ReportAnswer};
use drover_sandbox::world::World;
use drover_sandbox::world::cloud::SimulatedInstance;
use drover_sandbox::world::resource::Resource;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// What an answer belongs to.
pub type Key = CallKey;

const WATCHED: [(Resource, Kind); 2] =
    [(Resource::new("", "nodes"), Kind::Node), (Resource::new("", "pods"), Kind::Pod)];
const REPORT_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// One agent and its node's name.
#[derive(Debug)]
pub struct NodeAgent {
    agent: Agent,
    node: String,
    seen: u64,
}

impl NodeAgent {
    /// The agent of an instance that has booted.
    pub fn start(instance: &SimulatedInstance, now: Timestamp) -> Self {
        let node = instance.private_dns_name();
        let identity = Identity {
            node: NodeName::from(node.as_str()),
            boot: BootId::from(format!("boot of {}", instance.id)),
        };
        let mut agent = Agent::new(identity, None, REPORT_INTERVAL);
        agent.step(Input::Instance(instance.id.clone()), now);
        Self { agent, node, seen: 0 }
    }

    /// The Node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Lists what its watches would show, and polls its IMDS.
    pub fn observe(
        &mut self,
        world: &World,
        instance: &SimulatedInstance,
        now: Timestamp,
    ) -> Vec<Wish> {
        let mut inputs = Vec::new();
        let revision = world.store.revision();
        // What has not changed need not be listed again.
        let watched = if self.seen == revision { &[][..] } else { &WATCHED };
        self.seen = revision;
        for (resource, kind) in watched {
            let kind = *kind;
            inputs.push(Input::Cluster(ClusterEvent::Restarted(kind)));
            for (_, object) in world.store.iter(resource).filter(|(_, object)| self.is_mine(object))
            {
                let object = ClusterObject::from_json(kind, object.as_ref().clone());
                let object = object.expect("the world's objects are readable");
                inputs.push(Input::Cluster(ClusterEvent::Applied(object)));
            }
            inputs.push(Input::Cluster(ClusterEvent::Synced(kind)));
        }
        let spot = match &instance.notices.spot {
            Some(notice) => Answer::Body(
                json!({"action": notice.action, "time": notice.time.to_string()}).to_string(),
            ),
            None => Answer::Absent,
        };
        inputs.push(Input::Notice(NoticePath::SpotAction, spot));
        inputs.push(Input::Tick);
        inputs.into_iter().flat_map(|input| self.agent.step(input, now)).collect()
    }

    /// The complete list of what the leader wants of it.
    pub fn direct(&mut self, directives: Vec<Directive>, now: Timestamp) -> Vec<Wish> {
        self.agent.step(Input::Directives(directives), now)
    }

    /// The leader's answer to a report.
    pub fn answered(&mut self, sequence: u64, answer: ReportAnswer, now: Timestamp) -> Vec<Wish> {
        self.agent.step(Input::Answered(sequence, answer), now)
    }

    /// The outcome of a call.
    pub fn outcome(
        &mut self,
        key: Key,
        outcome: Result<Value, KubernetesFailure>,
        now: Timestamp,
    ) -> Vec<Wish> {
        self.agent.step(Input::Outcome(key, outcome), now)
    }

    fn is_mine(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        text("/spec/nodeName").or_else(|| text("/metadata/name")) == Some(self.node.as_str())
    }
}
