//! The command line.

mod simulate;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use drover_sandbox::duration;
use drover_sandbox::world::faults::Fault;

pub(crate) use simulate::{OutputFormat, SimulateArgs};

/// Node autoscaling for Kubernetes on AWS: an agent on every node, a Raft-replicated leader group.
#[derive(Debug, Parser)]
#[command(name = "drover", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a simulated cloud and cluster with three leaders and an agent per node, and take a tour.
    Sandbox(SandboxArgs),
    /// Plan for a dump of a cluster, without touching Kubernetes or AWS.
    Simulate(SimulateArgs),
    /// Print the custom resource definitions as YAML.
    Crds(CrdsArgs),
    /// Measure something here and now, and print the figures.
    #[command(subcommand)]
    Bench(BenchArgs),
    /// Run one leader replica (the same as the `drover-leader` binary).
    #[command(hide = true)]
    Leader(Box<drover_leader::Args>),
    /// Run the agent of one node (the same as the `drover-agent` binary).
    #[command(hide = true)]
    Agent(Box<drover_agent::Args>),
}

/// `drover crds`.
#[derive(Debug, clap::Args)]
pub(crate) struct CrdsArgs {
    /// Write one file per definition into this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
}

/// `drover bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchArgs {
    /// Memory, CPU, network and size of an idle agent on a node full of pods.
    Agent(AgentBenchArgs),
    /// Time of plans for clusters that are hard on a planner, and what is left out of them.
    Hostile(HostileBenchArgs),
    /// Resident memory of leaders and agents as processes, with a cluster in view.
    Memory(MemoryArgs),
    /// Print a made-up dump as kubectl would, to try `drover simulate` on.
    Dump(DumpArgs),
    /// Many agents against leaders as processes: what their reports cost, and how soon a new leader has
    /// heard of all.
    Fleet(FleetArgs),
    /// From a spot notice in IMDS to the cordon, the first eviction and the replacement's launch.
    Notice(NoticeArgs),
    /// Time and cost of plans: pods a second, and how far above a lower bound.
    Plan(PlanBenchArgs),
    /// Time, savings and evictions of consolidating clusters that run half empty.
    Repack(RepackBenchArgs),
}

/// `drover bench dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct DumpArgs {
    /// Pods, of 200 deployments.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) pods: u32,
    /// Nodes; pods beyond what they run wait.
    #[arg(long, default_value_t = 0)]
    pub(crate) nodes: u32,
    /// Pods that run on each node.
    #[arg(long, default_value_t = 12)]
    pub(crate) pods_per_node: u32,
    /// With the managed fields that kubectl leaves out unless it is asked.
    #[arg(long)]
    pub(crate) managed_fields: bool,
    /// How it is printed.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub(crate) format: DumpFormat,
}

/// How a dump is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DumpFormat {
    /// As `kubectl get -o json` does.
    #[default]
    Json,
    /// As `kubectl get -o yaml` does.
    Yaml,
}

/// `drover bench plan`. Every mix with every number of pods, nodes and way of billing named is one
/// row.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanBenchArgs {
    /// What the pods are like: karpenter, generic, realistic, gpu, constrained.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "karpenter,generic,realistic,gpu,constrained"
    )]
    pub(crate) mix: Vec<drover_bench::Mix>,
    /// How many pods wait.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    pub(crate) pods: Vec<usize>,
    /// How many nodes are there, with about 12 pods each.
    #[arg(long, value_delimiter = ',', default_value = "0,5000")]
    pub(crate) nodes: Vec<usize>,
    /// How nodes may be bought: on-demand, spot (or on demand).
    #[arg(long, value_delimiter = ',', default_value = "on-demand,spot")]
    pub(crate) billing: Vec<drover_bench::Billing>,
    /// Plan so often and report the fastest.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Let the independent checker look at each plan; it goes pod by pod and is slow on large ones.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `drover bench hostile`. Every cluster with every number of pods is one row.
#[derive(Debug, clap::Args)]
pub(crate) struct HostileBenchArgs {
    /// What is hard about the clusters; by default all of it.
    #[arg(long, value_delimiter = ',')]
    pub(crate) of: Vec<drover_bench::Hostile>,
    /// How many pods wait.
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    pub(crate) pods: Vec<usize>,
    /// Let the independent checker look at each plan; it goes pod by pod and is slow on large ones.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `drover bench repack`. Every mix with every way of billing named is one row.
#[derive(Debug, clap::Args)]
pub(crate) struct RepackBenchArgs {
    /// What the pods are like: realistic, constrained.
    #[arg(long, value_delimiter = ',', default_value = "realistic,constrained")]
    pub(crate) mix: Vec<drover_bench::Mix>,
    /// Nodes of 8 to 32 cores.
    #[arg(long, default_value_t = 5000)]
    pub(crate) nodes: usize,
    /// Pods that run on them, of 200 deployments.
    #[arg(long, default_value_t = 60_000)]
    pub(crate) pods: usize,
    /// How nodes are bought: on-demand, spot (or on demand).
    #[arg(long, value_delimiter = ',', default_value = "on-demand,spot")]
    pub(crate) billing: Vec<drover_bench::Billing>,
    /// Repack so often and report the fastest.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Let the independent checker look at each repack; it goes pod by pod and is slow on large ones.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `drover bench memory`.
#[derive(Debug, clap::Args)]
pub(crate) struct MemoryArgs {
    /// Pods to run; about 30 fit a node.
    #[arg(long, default_value_t = 3000)]
    pub(crate) pods: u32,
}

/// `drover bench agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentBenchArgs {
    /// The agent's binary; by default the one beside this one.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Pods on its node.
    #[arg(long, default_value_t = 110)]
    pub(crate) pods: u32,
    /// How long it's watched.
    #[arg(long, default_value = "600s", value_parser = duration::parse)]
    pub(crate) time: Duration,
    /// Make genuine control groups below the machine's mount of version 2, with a process in each container's, and
    /// remove them at the end, in place of plain files. Takes root.
    #[arg(long)]
    pub(crate) real_cgroups: bool,
    /// Fail above so much resident memory, MiB.
    #[arg(long, value_name = "MIB")]
    pub(crate) most_memory: Option<f64>,
    /// Fail above so much CPU, percent of a core.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) most_cpu: Option<f64>,
}

/// `drover bench fleet`.
#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    /// Agents: processes on nodes that the leaders launch.
    #[arg(long, default_value_t = 300)]
    pub(crate) agents: u32,
    /// Agents that are made up by one load generator in place of those: each reports and waits for
    /// directives as a real one does, over connections of its own.
    #[arg(long, value_name = "AGENTS", conflicts_with = "agents")]
    pub(crate) simulated: Option<u32>,
    /// Pods on each made-up agent's node.
    #[arg(long, default_value_t = 30)]
    pub(crate) pods_per_node: u32,
    /// How long the leaders are watched before one is killed.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    pub(crate) time: Duration,
}

/// `drover bench notice`.
#[derive(Debug, clap::Args)]
pub(crate) struct NoticeArgs {
    /// Spot nodes, each with an agent, that are interrupted one after the other.
    #[arg(long, default_value_t = 200)]
    pub(crate) nodes: u32,
    /// Leader replicas.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) leaders: u8,
    /// Stop every leader before the first notice.
    #[arg(long)]
    pub(crate) without_leaders: bool,
    /// Interrupt all nodes at once while the API server is down for so long; times count from its
    /// return.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) api_down: Option<Duration>,
    /// The pods' terminationGracePeriodSeconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) grace: u32,
    /// The seconds that pods take to stop.
    #[arg(long, default_value_t = 1)]
    pub(crate) stop: u32,
}

/// `drover sandbox`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SandboxArgs {
    /// End after the tour; the exit status is non-zero where a step failed.
    #[arg(long)]
    pub(crate) exit: bool,
    /// Apply these manifests (a file or a folder; may be repeated) in place of the tour's.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub(crate) filenames: Vec<PathBuf>,
    /// Leader replicas.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) leaders: u8,
    /// From launch until a node's kubelet registers, e.g. 8s or 1m.
    #[arg(long, default_value = "8s", value_parser = duration::parse)]
    pub(crate) boot_delay: Duration,
    /// Divide simulated delays (boot, pod start, pod stop) by this; all else runs in real time.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,
    /// Seed of the simulated cloud: spot prices and capacity.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Instance types and prices, in the format of `drover simulate`; by default the built-in table.
    #[arg(long, value_name = "FILE")]
    pub(crate) catalog: Option<PathBuf>,
    /// Where kubeconfig, endpoints.json, logs and the leaders' data go; by default a new temporary
    /// folder, which is printed. What an earlier run left there is removed first.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Have the leaders listen to the simulated account's interruption queue, too.
    #[arg(long)]
    pub(crate) interruption_queue: bool,
    /// Let requests go wrong: FACE is kubernetes, ec2, ssm, pricing, sqs, imds or kubelet; EFFECT is
    /// error[=STATUS], contended-budget (kubernetes alone: the 409 that evictions meet), delay=TIME (the
    /// request waits), delay-answer=TIME (it is done, and its answer waits), lost-answer (it is done, and
    /// the connection breaks), cut-body (half of the answer is missing), slow-body=TIME (it comes bit by
    /// bit) or hang; SHARE of the requests, all by default, e.g. 10%. `ec2/CreateFleet:lost-answer:50%`
    /// strikes one operation, and `*` in it is any text. May be repeated: the first that strikes decides.
    /// Faults of kubernetes strike kubectl and the tour, too.
    #[arg(long = "fault", value_name = "FACE[/OPERATION]:EFFECT[:SHARE]")]
    pub(crate) faults: Vec<Fault>,
    /// Run leaders and agents as processes of their own instead of inside this one.
    #[arg(long)]
    pub(crate) processes: bool,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("expected a number from 0.01 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_a_bad_one_is_named() {
        let parse = |faults: &[&str]| {
            let flags = faults.iter().flat_map(|fault| ["--fault", *fault]);
            Cli::try_parse_from(["drover", "sandbox"].into_iter().chain(flags))
        };
        let Command::Sandbox(args) =
            parse(&["ec2/CreateFleet:lost-answer:50%", "imds:delay=2s"]).unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!(args.faults.len(), 2);
        assert_eq!(
            (args.faults[0].operation.as_str(), args.faults[0].probability),
            ("CreateFleet", 0.5)
        );
        let refused = parse(&["ec2:hang", "s3:hang"]).unwrap_err().to_string();
        assert!(refused.contains("--fault") && refused.contains("s3"), "{refused}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
