//! The loop: inputs in, effects out.

mod tell;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use drover_agent_core::usage::{ContainerNames, PodNames};
use drover_agent_core::{Agent, CallKey, Effect, Identity, Input, Metrics, Moment};
use drover_common::call::{KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use drover_common::cluster::ClusterEvent;
use drover_common::id::InstanceId;
use drover_common::protocol::Report;
use drover_kubernetes::Client;
use jiff::SignedDuration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock, Reading};
use crate::config::Config;
use crate::disk::{self, DISK_PATIENCE, Kept, StateDir};
use crate::imds::Imds;
use crate::keep::Keeper;
use crate::kubeconfig::Way;
use crate::leaders::{Leaders, LeadersError};
use crate::measure::Measuring;
use crate::metrics::MetricsQuestion;
use crate::power::{self, Power};
use crate::pulse::Pulse;
use crate::question::{ContainersQuestion, PodNamesQuestion};
use crate::{cluster, eks, measure, metrics, permissions, poll};

/// Between two looks at the state while something is under way, and while nothing is.
const BUSY_TICK: Duration = Duration::from_millis(200);
const IDLE_TICK: Duration = Duration::from_secs(1);
/// A patch or read of the own Node that takes longer is made again.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// An eviction can hang for 10 s within the API server while it updates a budget.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(11);

/// Why an agent could not start. Once started it only ends when it's asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client of the metadata service can't be built.
    #[error("client of the instance metadata service: {0}")]
    Imds(#[source] reqwest::Error),
    /// The leaders' settings are unusable.
    #[error("leaders: {0}")]
    Leaders(#[from] LeadersError),
}

/// Runs an agent until `shutdown` is cancelled. Everything it started ends with it; a drain under
/// way is left as it is, for the next agent or the leaders to go on with.
///
/// # Errors
/// [`RunError`], before anything was done.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    run_with(config, shutdown, Pulse::default()).await
}

/// As [`run`], with signs of life for a watchdog.
pub(crate) async fn run_with(
    config: Config,
    shutdown: CancellationToken,
    pulse: Pulse,
) -> Result<(), RunError> {
    drover_kubernetes::install_crypto_provider();
    let disk = StateDir::at(&config.state_dir);
    let boot = disk::boot_id(&config.host_root).await;
    let opened = async {
        disk.open().await;
        disk.load().await
    };
    let kept = tokio::time::timeout(DISK_PATIENCE, opened).await.unwrap_or_else(|_| {
        tracing::warn!("Disk does not answer; the agent starts without what it kept.");
        None
    });
    let kept_clock = kept.as_ref().filter(|kept| kept.saved.boot == boot);
    let kept_clock = kept_clock.and_then(|kept| kept.clock);
    let clock = Clock::new(Reading::now()).resume(clock::since_boot(), kept_clock);
    let saved = kept.map(|kept| kept.saved);
    let identity = Identity { node: config.node.clone(), boot };
    let report_interval =
        SignedDuration::try_from(config.report_interval).unwrap_or(SignedDuration::MAX);
    let imds = Arc::new(Imds::new(&config.imds).map_err(RunError::Imds)?);
    let api_identity = eks::identity(&config, Arc::clone(&imds));

    let (inputs, received) = mpsc::channel(256);
    let (events, received_events) = mpsc::channel(256);
    let (report, reports) = watch::channel(None);
    let (instance, instances) = watch::channel(None);
    let (client, clients) = watch::channel(None);
    let (gpus, has_gpus) = watch::channel(false);
    let (urgent, is_urgent) = watch::channel(false);
    let leaders = Leaders::new(&config, clients.clone()).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(poll::poll(imds, config.imds_interval, pulse.clone(), inputs.clone()));
    let (pod_names, pods_asked) = PodNamesQuestion::channel();
    let (containers, containers_asked) = ContainersQuestion::channel();
    let (page, page_asked) = MetricsQuestion::channel();
    let questions =
        Questions { pods: pods_asked, containers: containers_asked, metrics: page_asked };
    if let Some(address) = config.metrics_address {
        tasks.spawn(metrics::serve(address, page));
    }
    let way = Way::of(&config);
    let kubelet = measure::KubeletSettings::of(
        &config,
        way.clone(),
        clients.clone(),
        Some(api_identity.clone()),
    );
    let settings = measure::Settings {
        root: config.host_root.clone(),
        interval: config.sample_interval,
        digest_interval: config.report_interval,
        source: config.usage_source,
        kubelet,
        gpus: config.gpu_metrics.clone(),
        has_gpus,
        pod_names,
        containers,
    };
    let (measuring, samples) = Measuring::new(settings, disk.clone(), inputs.clone());
    tasks.spawn(samples);
    let (keeper, keeping) = Keeper::new(disk);
    tasks.spawn(keeping);
    if let Some(leaders) = leaders {
        tasks.spawn(leaders.clone().send_reports(reports, inputs.clone()));
        tasks.spawn(leaders.poll_directives(config.node.clone(), instances, inputs.clone()));
    }
    tracing::info!(node = %config.node, leaders = config.leaders.len(), "Agent started.");
    let agent =
        Agent::new(identity, saved, report_interval).cordoning_on_problem(config.cordon_on_problem);
    let stop_grace = config.stop_grace;
    let (power, asked) = Power::new();
    let settings = power::Settings {
        socket: config.host_root.join(power::SOCKET),
        may_power_off: config.may_power_off,
        stop_grace,
        looks_every: power::LOOKS_EVERY,
    };
    tasks.spawn(power::follow(settings, inputs.clone(), asked));
    tasks.spawn(permissions::look(config.node.clone(), clients.clone(), inputs.clone()));
    let access = cluster::Access { way, context: config.context, identity: api_identity };
    tasks.spawn(cluster::follow(config.node, access, client, is_urgent, events));
    let mut shell = Shell {
        agent,
        stop_grace,
        power,
        pulse,
        clock,
        keeper,
        measuring,
        clients,
        inputs,
        report,
        instance,
        gpus,
        urgent,
        tasks,
    };
    shell.run(received, received_events, questions, shutdown).await;
    tracing::info!("Agent stopped.");
    Ok(())
}

/// What measuring needs to know of pods, and what the page of metrics tells.
struct Questions {
    pods: mpsc::Receiver<oneshot::Sender<PodNames>>,
    containers: mpsc::Receiver<oneshot::Sender<ContainerNames>>,
    metrics: mpsc::Receiver<oneshot::Sender<Option<Metrics>>>,
}

struct Shell {
    agent: Agent,
    stop_grace: Duration,
    power: Power,
    pulse: Pulse,
    clock: Clock,
    keeper: Keeper,
    measuring: Measuring,
    clients: watch::Receiver<Option<Client>>,
    inputs: mpsc::Sender<Input>,
    report: watch::Sender<Option<Arc<Report>>>,
    instance: watch::Sender<Option<InstanceId>>,
    /// Whether the Node has any.
    gpus: watch::Sender<bool>,
    /// Whether what the watches tell is needed at once.
    urgent: watch::Sender<bool>,
    /// Dropped with the shell, which ends them all.
    tasks: JoinSet<()>,
}

impl Shell {
    async fn run(
        &mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut events: mpsc::Receiver<ClusterEvent>,
        mut questions: Questions,
        shutdown: CancellationToken,
    ) {
        let mut stop_at = None;
        loop {
            let pause = if self.agent.is_busy() { BUSY_TICK } else { IDLE_TICK };
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled(), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + self.stop_grace);
                    self.asked_to_stop().await
                }
                Some(input) = inputs.recv() => input,
                Some(event) = events.recv() => Input::Cluster(event),
                Some(asked) = questions.pods.recv() => {
                    // Who asked may have been stopped since.
                    let _nobody_asks = asked.send(self.agent.running_pods());
                    continue;
                }
                Some(asked) = questions.containers.recv() => {
                    let _nobody_asks = asked.send(self.agent.containers());
                    continue;
                }
                Some(asked) = questions.metrics.recv() => {
                    let now = self.now();
                    let _nobody_asks = asked.send(Some(self.agent.metrics(now)));
                    // However often strangers ask, time passes.
                    Input::Tick
                }
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "A task of the agent panicked.");
                    }
                    continue;
                }
                () = tokio::time::sleep(pause) => Input::Tick,
            };
            self.take(input);
            self.pulse.decided();
            let now = self.now().wall;
            if let Some(at) = stop_at
                && (Instant::now() >= at || !self.agent.has_drain_to_finish(now))
            {
                tokio::join!(self.keeper.finish(), self.measuring.finish());
                return;
            }
        }
    }

    fn now(&mut self) -> Moment {
        self.clock.moment(Reading::now(), self.agent.is_busy())
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        let effects = self.agent.step(input, now);
        self.instance.send_if_modified(|known| {
            let changed = known.as_ref() != self.agent.instance();
            if changed {
                *known = self.agent.instance().cloned();
            }
            changed
        });
        self.gpus.send_if_modified(|known| {
            let has = self.agent.has_gpus();
            std::mem::replace(known, has) != has
        });
        self.urgent.send_if_modified(|known| {
            let is = self.agent.is_urgent(now.wall);
            std::mem::replace(known, is) != is
        });
        for effect in effects {
            match effect {
                Effect::Call(key, call) => self.call(key, call),
                Effect::Report(report) => {
                    self.report.send_replace(Some(Arc::from(report)));
                }
                Effect::Save(saved) => {
                    let clock = self.clock.kept(std::time::Instant::now());
                    self.keeper.keep(Kept { saved, clock: Some(clock) });
                }
                Effect::PowerOff(attempt) => self.power_off(attempt),
                // Where the agent itself is being stopped the loop sees that nothing is left to stay for.
                Effect::AllowShutdown => self.power.allow_shutdown(),
                Effect::Tell(fact) => tell::tell(&fact),
            }
        }
    }

    /// What it means that the agent has to stop: that the machine does, or no more than that.
    async fn asked_to_stop(&self) -> Input {
        let waits = SignedDuration::try_from(self.stop_grace).unwrap_or(SignedDuration::MAX);
        if waits.is_positive() && self.power.is_shutting_down().await {
            Input::Shutdown(Some(waits))
        } else {
            Input::Tick
        }
    }

    fn power_off(&mut self, attempt: u32) {
        let Err(reason) = self.power.power_off(attempt) else { return };
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            // Nobody listens only when the agent stops.
            let _stopping = inputs.send(Input::PoweredOff(attempt, Err(reason))).await;
        });
    }

    fn call(&mut self, key: CallKey, call: KubernetesCall) {
        let client = self.clients.borrow().clone();
        let inputs = self.inputs.clone();
        let timeout = match key {
            CallKey::Drain(_) => DRAIN_TIMEOUT,
            _ => NODE_TIMEOUT,
        };
        self.tasks.spawn(async move {
            let outcome = match client {
                Some(client) => drover_kubernetes::execute(&client, &call, timeout).await,
                None => Err(KubernetesFailure {
                    kind: KubernetesFailureKind::Unreachable,
                    message: "not connected to the Kubernetes API yet".to_owned(),
                    retry_after_seconds: None,
                }),
            };
            // Nobody listens only when the agent stops.
            let _stopping = inputs.send(Input::Outcome(key, outcome)).await;
        });
    }
}
