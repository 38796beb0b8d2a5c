//! `drover bench hostile`: the planner on clusters that nobody has.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use drover_bench::{Hostile, hostile_header, hostile_line, measure_hostile};

use crate::args::HostileBenchArgs;

/// Prints one row a cluster, as it is measured. Fails if the checker finds anything.
pub(crate) fn run(args: &HostileBenchArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let broken_pipe = "cannot print";
    out.write_all(hostile_header().as_bytes()).context(broken_pipe)?;
    let all = if args.of.is_empty() { &Hostile::ALL[..] } else { &args.of };
    let mut sound = true;
    for of in all {
        for pods in &args.pods {
            let figures = measure_hostile(*of, *pods, args.check);
            out.write_all(hostile_line(&figures).as_bytes()).context(broken_pipe)?;
            sound &= figures.violations.unwrap_or(0) == 0;
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
