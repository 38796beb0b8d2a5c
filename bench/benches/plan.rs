//! `cargo bench -p drover-bench`: the planner on the cases of record, as the table that
//! `drover bench plan` prints.
//!
//! A plain command and no framework: what counts is the processor's time, the cost over the bound and
//! the memory, which no benchmark library prints together, and a library's features would be unified
//! into every build of the workspace.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use drover_bench::{Billing, BoundError, Case, Mix, header, line, measure};

const RUNS: usize = 5;

fn main() -> Result<(), BoundError> {
    print!("{}", header());
    for case in cases() {
        print!("{}", line(&measure(case, RUNS, false)?));
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mix in Mix::ALL {
        for pods in [1_000, 10_000, 100_000] {
            for nodes in [0, 5_000] {
                cases.push(Case { mix, pods, nodes, billing: Billing::OnDemand });
            }
        }
    }
    for pods in [10_000, 100_000] {
        cases.push(Case { mix: Mix::Realistic, pods, nodes: 0, billing: Billing::Spot });
    }
    // What a batch costs in a cluster that runs.
    cases.push(Case { mix: Mix::Realistic, pods: 50, nodes: 5_000, billing: Billing::OnDemand });
    cases
}
