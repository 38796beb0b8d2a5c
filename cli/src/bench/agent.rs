//! What an agent costs: resident memory, CPU, network and the size of its binary, idle on a node full
//! of pods.

mod node;
mod wire;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};

use crate::args::AgentBenchArgs;
use node::Node;
use wire::{Forwarder, Leader};

/// Until everything is connected, listed and measured once.
const SETTLE: Duration = Duration::from_secs(20);
/// `/proc/<pid>/stat` counts in these; it's 100 on every Linux that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

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
    runtime.block_on(measure(args, &binary))
}

async fn measure(args: &AgentBenchArgs, binary: &Path) -> anyhow::Result<ExitCode> {
    drover_kubernetes::install_crypto_provider();
    let size = std::fs::metadata(binary)
        .with_context(|| format!("{}: build it, or name one with --binary", binary.display()))?
        .len();
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let node = Node::start(folder.path(), args.pods).await?;
    let leader = Leader::start().await?;
    let wires = [
        ("IMDS (link-local)", Forwarder::start(&node.imds).await?),
        ("Kubernetes API", Forwarder::start(&node.kubernetes).await?),
        ("leaders", Forwarder::start(&leader.url).await?),
    ];
    let [(_, imds), (_, kubernetes), (_, leaders)] = &wires;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, node.kubeconfig(&kubernetes.url))?;
    let mut agent = spawn(binary, folder.path(), &node, [&imds.url, &leaders.url], &kubeconfig)?;
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
    folder: &Path,
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
        .arg(&node.host)
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

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; the times are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "no times in stat");
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// What a process holds, bytes.
struct Memory {
    resident: u64,
    peak: u64,
    /// Not backed by files: what it allocated and wrote.
    own: u64,
    /// Mapped files: code, mostly, which is shared and can be dropped.
    files: u64,
    threads: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let status = std::fs::read_to_string(path)?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.with_context(|| format!("no {name} in status"))
        };
        let kilobytes = |name: &str| number(name).map(|kilobytes| kilobytes.saturating_mul(1024));
        Ok(Self {
            resident: kilobytes("VmRSS:")?,
            peak: kilobytes("VmHWM:")?,
            own: kilobytes("RssAnon:")?,
            files: kilobytes("RssFile:")?,
            threads: number("Threads:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        let memory = Memory::of(pid).unwrap();
        assert!(memory.peak >= memory.own && memory.threads > 0 && memory.resident > 1 << 20);
    }
}
