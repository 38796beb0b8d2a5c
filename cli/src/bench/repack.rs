//! `drover bench repack`: consolidation of clusters that run half empty.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use drover_bench::{Case, Running, measure_repack, repack_header, repack_line};

use crate::args::RepackBenchArgs;

/// Prints one row a cluster, as it is measured. Fails if the checker finds anything.
pub(crate) fn run(args: &RepackBenchArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let broken_pipe = "cannot print";
    out.write_all(repack_header().as_bytes()).context(broken_pipe)?;
    let mut sound = true;
    for mix in &args.mix {
        for billing in &args.billing {
            let case = Case { mix: *mix, pods: args.pods, nodes: args.nodes, billing: *billing };
            let running = Running::new(case);
            let figures = measure_repack(&running, args.runs, args.check)
                .with_context(|| case.to_string())?;
            out.write_all(repack_line(&figures).as_bytes()).context(broken_pipe)?;
            sound &= figures.violations.unwrap_or(0) == 0;
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
