//! What an agent costs: resident memory, CPU, network and the size of its binary, idle on a node full
//! of pods.

mod files;
mod groups;
mod node;
mod wire;

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};

use super::process::{Memory, cpu_seconds, mebibytes};
use crate::args::AgentBenchArgs;
use crate::role::shutdown_on_signals;
use files::Files;
use groups::Groups;
use node::Node;
use wire::{Forwarder, Leader};

/// Until everything is connected, listed and measured once.
const SETTLE: Duration = Duration::from_secs(20);
/// Processes in control groups end by themselves so long after the end, should nobody be left to end them.
const OVERTIME: Duration = Duration::from_secs(300);

/// Starts a simulated node with pods, an agent process beside it, lets it idle, and prints what it
/// cost. Fails if it's over the limits that the arguments name.
pub(crate) fn run(args: &AgentBenchArgs) -> anyhow::Result<ExitCode> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()
            .context("cannot find this binary")?
            .with_file_name("drover-agent"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = shutdown_on_signals()?;
        // What is dropped here takes processes and control groups along.
        tokio::select! {
            measured = measure(args, &binary) => measured,
            () = stop.cancelled() => anyhow::bail!("interrupted"),
        }
    })
}

async fn measure(args: &AgentBenchArgs, binary: &Path) -> anyhow::Result<ExitCode> {
    drover_kubernetes::install_crypto_provider();
    let size = std::fs::metadata(binary)
        .with_context(|| format!("{}: build it, or name one with --binary", binary.display()))?
        .len();
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let host = folder.path().join("host");
    let node = Node::start(args.pods).await?;
    let (files, groups) = if args.real_cgroups {
        let files = Files::lay_out(&host, &[])?;
        (files, Some(Groups::make(&host, &node.pods, SETTLE + args.time + OVERTIME)?))
    } else {
        (Files::lay_out(&host, &node.pods)?, None)
    };
    tokio::task::spawn_blocking(move || files.live());
    let leader = Leader::start().await?;
    let wires = [
        ("IMDS (link-local)", Forwarder::start(&node.imds).await?),
        ("Kubernetes API", Forwarder::start(&node.kubernetes).await?),
        ("leaders", Forwarder::start(&leader.url).await?),
    ];
    let [(_, imds), (_, kubernetes), (_, leaders)] = &wires;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, node.kubeconfig(&kubernetes.url))?;
    let mut agent =
        spawn(binary, [folder.path(), &host], &node, [&imds.url, &leaders.url], &kubeconfig)?;
    tokio::time::sleep(SETTLE).await;

    let pid = agent.id().context("the agent ended")?;
    let (cpu, sent) = (cpu_seconds(pid)?, wires.each_ref().map(|(_, wire)| wire.bytes()));
    tokio::time::sleep(args.time).await;
    anyhow::ensure!(agent.try_wait()?.is_none(), "the agent ended");
    let seconds = args.time.as_secs_f64();
    let percent = (cpu_seconds(pid)? - cpu) / seconds * 100.0;
    let memory = Memory::of(pid)?;
    let reports = leader.reports();
    agent.kill().await?;

    let mut out = std::io::stdout().lock();
    let mut line =
        |text: String| std::io::Write::write_all(&mut out, format!("{text}\n").as_bytes());
    line(format!("{} pods, {seconds:.0} s idle, {}", args.pods, binary.display()))?;
    let of_groups = groups.map_or_else(|| "plain files".to_owned(), |groups| groups.describe());
    line(format!("control groups    {of_groups}"))?;
    line(format!("binary            {:>9.2} MiB", mebibytes(size)))?;
    line(format!(
        "resident          {:>9.2} MiB (peak {:.2}; own {:.2}, of files {:.2})",
        mebibytes(memory.resident),
        mebibytes(memory.peak),
        mebibytes(memory.own),
        mebibytes(memory.files)
    ))?;
    line(format!("threads           {:>9}", memory.threads))?;
    line(format!("CPU               {percent:>9.3} % of a core"))?;
    for ((name, wire), before) in wires.iter().zip(sent) {
        let bytes = wire.bytes().saturating_sub(before) as f64 / seconds * 60.0;
        line(format!("{name:<18}{:>9.1} KiB a minute", bytes / 1024.0))?;
    }
    line(format!("reports           {reports:>9}"))?;
    let within = |value: f64, most: Option<f64>| most.is_none_or(|most| value <= most);
    let good = within(mebibytes(memory.resident), args.most_memory)
        && within(percent, args.most_cpu)
        && reports > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spawn(
    binary: &Path,
    [folder, host]: [&Path; 2],
    node: &Node,
    [imds, leaders]: [&str; 2],
    kubeconfig: &Path,
) -> anyhow::Result<Child> {
    let log = std::fs::File::create(folder.join("agent.log"))?;
    Command::new(binary)
        .args(["--node-name", &node.name])
        .args(["--imds-endpoint", &format!("{imds}/{}", node.instance)])
        .args(["--leaders", leaders])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--host-root")
        .arg(host)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| binary.display().to_string())
}
