//! How soon a spot notice is acted on.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::args::{NoticeArgs, SandboxArgs};
use crate::sandbox::measure_notice;

/// Starts a sandbox with an agent on each of many spot nodes, interrupts them, and prints how long it
/// took until that showed.
pub(crate) fn run(args: &NoticeArgs) -> anyhow::Result<ExitCode> {
    let sandbox = SandboxArgs {
        exit: true,
        leaders: args.leaders,
        boot_delay: Duration::from_secs(2),
        speed: 4.0,
        seed: 1,
        ..SandboxArgs::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let all = runtime.block_on(measure_notice(&sandbox, args))?;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
