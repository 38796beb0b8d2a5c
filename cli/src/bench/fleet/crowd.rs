//! Made-up agents: a Node and an agent's pod for each, its token, and tasks that speak as it would.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use drover_common::call::{Kind, Target};
use drover_sandbox::SharedWorld;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::figures::Figures;
use super::simulated::{PERIOD, SimulatedAgent};
use crate::sandbox::{Stage, agent_token, in_world, remove_agents};

/// Agents that share a client's pool of connections. Each request that is under way has one of its own.
const AGENTS_A_CLIENT: usize = 100;

/// The agents' tasks.
pub(super) struct Crowd {
    figures: Arc<Figures>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Crowd {
    /// Makes so many Nodes and agents, which begin to report one after the other within a period.
    pub(super) fn raise(stage: &Stage, agents: u32, pods: u32) -> anyhow::Result<Self> {
        let crowd = Self {
            figures: Arc::new(Figures::default()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let urls: Arc<[String]> = stage.leaders.api_urls().into();
        remove_agents(stage.world())?;
        let mut client = client()?;
        let mut made = Vec::new();
        for index in 0..agents as usize {
            if index % AGENTS_A_CLIENT == 0 {
                client = self::client()?;
            }
            let (node, instance) = (format!("made-up-{index}"), format!("i-{index:017x}"));
            let token = settle(stage.world(), &node, &instance)?;
            let urls = Arc::clone(&urls);
            let client = client.clone();
            made.push(SimulatedAgent { index, node, instance, token, urls, client, pods });
        }
        let begin = Instant::now();
        for (index, agent) in made.into_iter().enumerate() {
            let after = PERIOD.mul_f64(index as f64 / f64::from(agents.max(1)));
            crowd.start(Arc::new(agent), begin + after);
        }
        Ok(crowd)
    }

    fn start(&self, agent: Arc<SimulatedAgent>, at: Instant) {
        let (stop, figures) = (self.stop.clone(), Arc::clone(&self.figures));
        self.tasks.spawn(async move {
            let reports = agent.report(at, &figures);
            let polls = agent.poll(at, &figures);
            stop.run_until_cancelled(async { tokio::join!(reports, polls) }).await;
        });
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Ends all of them.
    pub(super) async fn disperse(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .build()
        .context("cannot make an HTTP client")
}

/// Makes a Node that takes no pods, and its agent's pod; returns that pod's token for leaders.
fn settle(world: &SharedWorld, node: &str, instance: &str) -> anyhow::Result<String> {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
        "spec": {
            "providerID": format!("aws:///us-east-1a/{instance}"),
            "taints": [{"key": "made-up", "effect": "NoSchedule"}],
        },
        "status": {
            "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "58"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    in_world::create(world, Target::cluster(Kind::Node, node), object)?;
    agent_token(world, node)
}
