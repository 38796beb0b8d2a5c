//! `drover bench plan`: the planner on workloads of every kind.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use drover_bench::{Case, header, line, measure};

use crate::args::PlanBenchArgs;

/// Prints one row a case, as it is measured. Fails if the checker finds anything.
pub(crate) fn run(args: &PlanBenchArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let broken_pipe = "cannot print";
    out.write_all(header().as_bytes()).context(broken_pipe)?;
    let mut sound = true;
    for case in cases(args) {
        let figures = measure(case, args.runs, args.check).with_context(|| case.to_string())?;
        out.write_all(line(&figures).as_bytes()).context(broken_pipe)?;
        sound &= figures.violations.unwrap_or(0) == 0;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cases(args: &PlanBenchArgs) -> Vec<Case> {
    let mut cases = Vec::new();
    for mix in &args.mix {
        for billing in &args.billing {
            for nodes in &args.nodes {
                for pods in &args.pods {
                    let case = Case { mix: *mix, pods: *pods, nodes: *nodes, billing: *billing };
                    // Made-up types cost the same either way.
                    let twice = cases.iter().any(|known: &Case| known.is_same_work(&case));
                    if !twice {
                        cases.push(case);
                    }
                }
            }
        }
    }
    cases
}
