//! The agents of a sandbox: one per node, as its DaemonSet's pod there would run it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use drover_sandbox::SharedWorld;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::cloud::{Cloud, Instance};
use super::identities::{AgentFiles, AgentPod};
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
    /// How many were found to have ended by other hands.
    ended: AtomicU64,
}

/// What every agent is started with.
struct Setting {
    processes: bool,
    leaders: Vec<String>,
    endpoints: drover_sandbox::Endpoints,
    folder: std::path::PathBuf,
    world: SharedWorld,
}

/// One agent, and what its pod has mounted.
struct Agent {
    files: AgentFiles,
    running: Running,
}

/// Agents as tasks share the sandbox's runtime: there may be hundreds.
enum Running {
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
        world: SharedWorld,
    ) -> Arc<Self> {
        let agents = Arc::new(Self {
            running: Mutex::new(BTreeMap::new()),
            setting: Setting {
                processes: args.processes,
                leaders: leaders.to_vec(),
                endpoints: endpoints.clone(),
                folder: state_dir.path().to_owned(),
                world,
            },
            shutdown: CancellationToken::new(),
            ended: AtomicU64::new(0),
        });
        let follower = Arc::clone(&agents);
        tokio::spawn(async move { follower.follow(cloud).await });
        agents
    }

    /// Stops every agent.
    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        for (_, agent) in std::mem::take(&mut *self.running.lock().await) {
            agent.running.stop().await;
        }
    }

    /// How many agents were seen to end by other hands so far.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// The process ids of the agents that are processes.
    pub(crate) async fn pids(&self) -> Vec<u32> {
        let running = self.running.lock().await;
        running.values().filter_map(|agent| agent.running.pid()).collect()
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

    /// Starts agents whose pods run, stops those of instances and pods that are gone, and restarts
    /// processes that ended.
    async fn match_instances(&self, instances: &[Instance]) {
        let alive: BTreeMap<&str, &Instance> = instances
            .iter()
            .filter(|instance| instance.state == "running")
            .map(|instance| (instance.id.as_str(), instance))
            .collect();
        let mut running = self.running.lock().await;
        let mut changed = false;
        for (id, mut agent) in std::mem::take(&mut *running) {
            let pod = (alive.get(id.as_str()))
                .and_then(|instance| self.setting.pod_of(instance))
                .filter(|pod| agent.files.are_of(pod));
            if pod.is_none() {
                agent.running.kill().await;
                changed = true;
            } else if agent.running.has_ended() {
                self.ended.fetch_add(1, Ordering::Relaxed);
            } else {
                if let Err(error) = agent.files.renew(&self.setting.world) {
                    tracing::warn!(instance = id, error = %format!("{error:#}"), "Tokens are old.");
                }
                running.insert(id, agent);
            }
        }
        for (id, instance) in alive {
            let Some(pod) = self.setting.pod_of(instance).filter(|_| !running.contains_key(id))
            else {
                continue;
            };
            match self.setting.spawn(instance, pod) {
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

    /// The agent's pod on an instance's node, once it runs.
    fn pod_of(&self, instance: &Instance) -> Option<AgentPod> {
        AgentPod::on(&self.world, &instance.private_dns_name)
    }

    fn spawn(&self, instance: &Instance, pod: AgentPod) -> anyhow::Result<Agent> {
        let state = self.folder.join("agents").join(&instance.id);
        std::fs::create_dir_all(&state).context("cannot make an agent's state folder")?;
        let files = AgentFiles::write(&state, &self.endpoints.kubernetes, &self.world, pod)?;
        let arguments = self.arguments(instance, &state, &files);
        let running = self.run(instance, &state, arguments)?;
        Ok(Agent { files, running })
    }

    fn run(
        &self,
        instance: &Instance,
        state: &std::path::Path,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<Running> {
        if self.processes {
            let mut command = vec![OsString::from("agent")];
            command.extend(arguments);
            let log = state.join("agent.log");
            return Ok(Running::Process(Member::process(&command, &[], &log)?));
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
        Ok(Running::Task { shutdown, handle })
    }

    fn arguments(
        &self,
        instance: &Instance,
        state: &std::path::Path,
        files: &AgentFiles,
    ) -> Vec<OsString> {
        let text = [
            ("--node-name", instance.private_dns_name.clone()),
            ("--imds-endpoint", self.imds(&instance.id)),
            ("--leaders", self.leaders.join(",")),
        ];
        let mut arguments: Vec<OsString> =
            text.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
        arguments.extend(["--kubeconfig".into(), files.kubeconfig().into_os_string()]);
        arguments.extend(["--token-file".into(), files.token().into_os_string()]);
        arguments.extend(["--state-dir".into(), state.as_os_str().to_owned()]);
        let host = self.folder.join("hosts").join(&instance.id);
        arguments.extend(["--host-root".into(), host.into_os_string()]);
        arguments
    }
}

impl Running {
    fn pid(&self) -> Option<u32> {
        match self {
            Running::Task { .. } => None,
            Running::Process(member) => member.pid(),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Running::Task { handle, .. } => handle.is_finished(),
            Running::Process(member) => member.has_ended(),
        }
    }

    /// The instance is gone, and with it everything that ran on it.
    async fn kill(self) {
        match self {
            Running::Task { shutdown, handle } => {
                shutdown.cancel();
                handle.abort();
            }
            Running::Process(member) => member.kill().await,
        }
    }

    async fn stop(self) {
        match self {
            Running::Task { shutdown, handle } => {
                shutdown.cancel();
                if tokio::time::timeout(Duration::from_secs(3), handle).await.is_err() {
                    tracing::warn!("An agent did not stop in time.");
                }
            }
            Running::Process(member) => member.stop().await,
        }
    }
}
