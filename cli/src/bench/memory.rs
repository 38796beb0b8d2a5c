//! Resident memory of a leader with a cluster in its view, and of an idle agent.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::args::{MemoryArgs, SandboxArgs};
use crate::sandbox::measure_memory;

/// How long everything may idle before it is measured.
const SETTLE: Duration = Duration::from_secs(15);

/// Starts a sandbox with leaders and agents as processes, fills it, lets it idle, and prints the
/// resident memory of each kind of process.
pub(crate) fn run(args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    let sandbox = SandboxArgs {
        exit: true,
        processes: true,
        leaders: 3,
        boot_delay: Duration::from_secs(2),
        speed: 4.0,
        seed: 1,
        ..SandboxArgs::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ready = runtime.block_on(measure_memory(&sandbox, args, SETTLE))?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Resident kilobytes of a process, from `/proc/<pid>/status` (field `VmRSS`).
pub(crate) fn resident_kilobytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(resident_kilobytes(std::process::id()).is_some_and(|kilobytes| kilobytes > 500));
        assert_eq!(resident_kilobytes(u32::MAX), None);
    }
}
