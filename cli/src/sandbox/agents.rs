//! The agents of a sandbox: one per instance, as an image with Drover's systemd unit would start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::cloud::{Cloud, Instance};
use super::member::Member;
use super::state_dir::{StateDir, write_endpoints};
use crate::args::SandboxArgs;

/// How often the cloud is asked for new instances.
const PERIOD: Duration = Duration::from_millis(300);

/// Agents by instance id.
pub(crate) struct Agents {
    running: Mutex<BTreeMap<String, Agent>>,
    setting: Setting,
    shutdown: CancellationToken,
}

/// What every agent is started with.
struct Setting {
    processes: bool,
    leaders: Vec<String>,
    endpoints: drover_sandbox::Endpoints,
    folder: std::path::PathBuf,
    kubeconfig: std::path::PathBuf,
}

/// Agents as tasks share the sandbox's runtime: there may be hundreds.
enum Agent {
    Task { shutdown: CancellationToken, handle: tokio::task::JoinHandle<()> },
    Process(Member),
}

/// Parses like the `drover-agent` binary does.
#[derive(Debug, Parser)]
struct AgentCommand {
    #[command(flatten)]
    args: drover_agent::Args,
}

impl Agents {
    /// Follows the cloud's instances until stopped.
    pub(crate) fn start(
        args: &SandboxArgs,
        state_dir: &StateDir,
        endpoints: &drover_sandbox::Endpoints,
        leaders: &[String],
        cloud: Cloud,
    ) -> Arc<Self> {
        let agents = Arc::new(Self {
            running: Mutex::new(BTreeMap::new()),
            setting: Setting {
                processes: args.processes,
                leaders: leaders.to_vec(),
                endpoints: endpoints.clone(),
                folder: state_dir.path().to_owned(),
                kubeconfig: state_dir.kubeconfig(),
            },
            shutdown: CancellationToken::new(),
        });
        let follower = Arc::clone(&agents);
        tokio::spawn(async move { follower.follow(cloud).await });
        agents
    }

    /// Stops every agent.
    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        for (_, agent) in std::mem::take(&mut *self.running.lock().await) {
            agent.stop().await;
        }
    }

    /// The process ids of the agents that are processes.
    pub(crate) async fn pids(&self) -> Vec<u32> {
        let running = self.running.lock().await;
        running.values().filter_map(Agent::pid).collect()
    }

    async fn follow(&self, cloud: Cloud) {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match cloud.instances().await {
                Ok(instances) => self.match_instances(&instances).await,
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "Instances are unknown.")
                }
            }
        }
    }

    /// Starts agents of running instances, stops those of instances that are gone, and restarts
    /// processes that ended.
    async fn match_instances(&self, instances: &[Instance]) {
        let alive: BTreeMap<&str, &Instance> = instances
            .iter()
            .filter(|instance| instance.state == "running")
            .map(|instance| (instance.id.as_str(), instance))
            .collect();
        let mut running = self.running.lock().await;
        let gone: Vec<String> =
            running.keys().filter(|id| !alive.contains_key(id.as_str())).cloned().collect();
        let mut changed = !gone.is_empty();
        for id in gone {
            if let Some(agent) = running.remove(&id) {
                agent.kill().await;
            }
        }
        for (id, instance) in alive {
            if running.get_mut(id).is_some_and(|agent| !agent.has_ended()) {
                continue;
            }
            match self.setting.spawn(instance) {
                Ok(agent) => {
                    running.insert(id.to_owned(), agent);
                    changed = true;
                }
                Err(error) => {
                    tracing::error!(instance = id, error = %format!("{error:#}"), "An agent did not start.");
                }
            }
        }
        if changed {
            self.setting.tell_endpoints(running.keys());
        }
    }
}

impl Setting {
    fn imds(&self, instance: &str) -> String {
        format!("{}/{instance}", self.endpoints.imds)
    }

    fn tell_endpoints<'a>(&self, instances: impl Iterator<Item = &'a String>) {
        let imds = instances.map(|id| (id.clone(), self.imds(id))).collect();
        if let Err(error) = write_endpoints(&self.folder, &self.endpoints, &self.leaders, &imds) {
            tracing::warn!(error = %format!("{error:#}"), "The endpoints file is out of date.");
        }
    }

    fn spawn(&self, instance: &Instance) -> anyhow::Result<Agent> {
        let state = self.folder.join("agents").join(&instance.id);
        std::fs::create_dir_all(&state).context("cannot make an agent's state folder")?;
        let arguments = self.arguments(instance, &state);
        if self.processes {
            let mut command = vec![OsString::from("agent")];
            command.extend(arguments);
            let log = state.join("agent.log");
            return Ok(Agent::Process(Member::process(&command, &[], &log)?));
        }
        let command = std::iter::once(OsString::from("drover-agent")).chain(arguments);
        let args = AgentCommand::try_parse_from(command).context("agent arguments")?.args;
        let config = drover_agent::Config::try_from(args).context("agent configuration")?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let id = instance.id.clone();
        let handle = tokio::spawn(async move {
            if let Err(error) = drover_agent::run(config, stop).await {
                tracing::error!(instance = %id, %error, "An agent ended.");
            }
        });
        Ok(Agent::Task { shutdown, handle })
    }

    fn arguments(&self, instance: &Instance, state: &std::path::Path) -> Vec<OsString> {
        let text = [
            ("--node-name", instance.private_dns_name.clone()),
            ("--imds-endpoint", self.imds(&instance.id)),
            ("--leaders", self.leaders.join(",")),
        ];
        let mut arguments: Vec<OsString> =
            text.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
        arguments.extend(["--kubeconfig".into(), self.kubeconfig.clone().into_os_string()]);
        arguments.extend(["--state-dir".into(), state.as_os_str().to_owned()]);
        let host = self.folder.join("hosts").join(&instance.id);
        arguments.extend(["--host-root".into(), host.into_os_string()]);
        arguments
    }
}

impl Agent {
    fn pid(&self) -> Option<u32> {
        match self {
            Agent::Task { .. } => None,
            Agent::Process(member) => member.pid(),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Agent::Task { handle, .. } => handle.is_finished(),
            Agent::Process(member) => member.has_ended(),
        }
    }

    /// The instance is gone, and with it everything that ran on it.
    async fn kill(self) {
        match self {
            Agent::Task { shutdown, handle } => {
                shutdown.cancel();
                handle.abort();
            }
            Agent::Process(member) => member.kill().await,
        }
    }

    async fn stop(self) {
        match self {
            Agent::Task { shutdown, handle } => {
                shutdown.cancel();
                if tokio::time::timeout(Duration::from_secs(3), handle).await.is_err() {
                    tracing::warn!("An agent did not stop in time.");
                }
            }
            Agent::Process(member) => member.stop().await,
        }
    }
}
