//! `drover sandbox`: a simulated cloud and cluster, a leader group and an agent per node, and a
//! tour that shows them at work.

mod agents;
mod catalog;
mod cloud;
mod cluster;
mod identities;
pub(crate) mod in_world;
mod leaders;
pub(crate) mod manifests;
mod member;
mod state_dir;
mod tour;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use drover_sandbox::world::WorldOptions;

use crate::args::SandboxArgs;
use crate::narration::Narrator;
use crate::role::shutdown_on_signals;
use agents::Agents;
use cloud::Cloud;
use cluster::Cluster;
use identities::LeaderFiles;
use leaders::Leaders;
use state_dir::StateDir;

pub(crate) use identities::{agent_token, remove_agents};
pub(crate) use tour::{Progress, Waited, wait};

/// The name of the simulated cluster; its subnets and security groups are tagged with it.
pub(crate) const CLUSTER_NAME: &str = "drover-sandbox";
/// The simulated region.
pub(crate) const REGION: &str = "us-east-1";

/// Starts everything, takes the tour or applies the user's manifests, and stays until Ctrl-C
/// (or ends after the tour with `--exit`).
pub(crate) fn run(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run_on(args))
}

/// Everything that runs, in the order in which it is stopped.
pub(crate) struct Stage {
    pub(crate) narrator: Narrator,
    pub(crate) leaders: Leaders,
    pub(crate) agents: Arc<Agents>,
    pub(crate) cluster: Cluster,
    pub(crate) cloud: Cloud,
    sandbox: drover_sandbox::Sandbox,
}

async fn run_on(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    drover_kubernetes::install_crypto_provider();
    let state_dir = StateDir::open(args.state_dir.as_deref(), args.leaders)?;
    state_dir.log_to_file()?;
    let shutdown = shutdown_on_signals()?;
    let stage = raise(&args, &state_dir).await?;
    let told = tokio::select! {
        told = perform(&args, &stage) => Some(told),
        () = shutdown.cancelled() => None,
    };
    let code = match told {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => ExitCode::FAILURE,
        Some(Err(error)) => {
            stage.narrator.print(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    };
    if !args.exit && !shutdown.is_cancelled() {
        stage.narrator.print(&format!(
            "\nThe cluster stays up. In another terminal:\n  export KUBECONFIG={}\n  kubectl get \
             nodepools,nodeclaims,nodes,pods -A\nCtrl-C ends it.",
            state_dir.kubeconfig().display()
        ));
        shutdown.cancelled().await;
    }
    stage.strike().await;
    if code == ExitCode::SUCCESS {
        state_dir.remove_if_temporary();
    } else {
        state_dir.keep();
    }
    Ok(code)
}

/// Raises everything, lets `act` act on it, and takes it down again.
pub(crate) async fn on_stage(
    args: &SandboxArgs,
    act: impl AsyncFnOnce(&Stage) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    drover_kubernetes::install_crypto_provider();
    let state_dir = StateDir::open(None, args.leaders)?;
    state_dir.log_to_file()?;
    let stage = raise(args, &state_dir).await?;
    let acted = act(&stage).await;
    stage.strike().await;
    acted
}

async fn perform(args: &SandboxArgs, stage: &Stage) -> anyhow::Result<bool> {
    if args.filenames.is_empty() {
        tour::run(stage).await
    } else {
        tour::apply_and_watch(stage, &args.filenames).await
    }
}

/// Starts the sandbox, the leaders and the agents, and tells where they are.
async fn raise(args: &SandboxArgs, state_dir: &StateDir) -> anyhow::Result<Stage> {
    let narrator = Narrator::new();
    let options = drover_sandbox::Options {
        world: WorldOptions {
            cluster_name: CLUSTER_NAME.to_owned(),
            region: REGION.to_owned(),
            seed: args.seed,
            boot_delay: args.boot_delay.try_into().context("--boot-delay")?,
            speed: args.speed,
            ..WorldOptions::default()
        },
        hosts: Some(state_dir.claim("hosts")?),
    };
    let for_sale = args.catalog.as_deref().map(|path| catalog::read(path, REGION)).transpose()?;
    let sandbox = drover_sandbox::Sandbox::start(options).await.context("sandbox")?;
    if let Some(types) = for_sale {
        sandbox.world().with(|world, _| world.cloud.sell(types));
    }
    let endpoints = sandbox.endpoints().clone();
    state_dir.write_kubeconfig(&sandbox.kubeconfig())?;
    let cluster = Cluster::connect(&state_dir.kubeconfig()).await?;
    identities::install(cluster.client()).await?;
    let world = sandbox.world().clone();
    let server = &endpoints.kubernetes;
    for name in ["certificates", "leader.kubeconfig", "leader.token", "agents"] {
        state_dir.claim(name)?;
    }
    let files = LeaderFiles::write(state_dir.path(), server, &world, args.leaders)?;
    let leaders = Leaders::start(args, state_dir, &endpoints, &files).await?;
    state_dir.write_endpoints(&endpoints, leaders.api_urls())?;
    let cloud = Cloud::new(&endpoints.admin)?;
    let urls = leaders.api_urls();
    let agents = Agents::start(args, state_dir, &endpoints, urls, cloud.clone(), world);
    narrator.headline("Drover on a simulated EC2 and Kubernetes, all on loopback.");
    narrator.print(&format!("  kubeconfig   {}", state_dir.kubeconfig().display()));
    narrator.print(&format!("  leaders      {}", leaders.api_urls().join("  ")));
    let renewed = if state_dir.renewed() { "  (an earlier run's are removed)" } else { "" };
    narrator.print(&format!("  logs, data   {}{renewed}", state_dir.path().display()));
    // What was set up until here is the sandbox's own affair, which nothing is to disturb.
    sandbox.world().with(|world, _| {
        for fault in &args.faults {
            world.faults.add(fault.clone());
        }
    });
    Ok(Stage { narrator, leaders, agents, cluster, cloud, sandbox })
}

impl Stage {
    /// The simulated world.
    pub(crate) fn world(&self) -> &drover_sandbox::SharedWorld {
        self.sandbox.world()
    }

    /// Stops agents, then leaders, then the world they live in.
    async fn strike(self) {
        self.agents.stop().await;
        self.leaders.stop().await;
        self.sandbox.shutdown().await;
    }
}
