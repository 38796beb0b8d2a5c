//! One cluster, repacked and measured.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use drover_core::planner::{check, repack_only};

use crate::bound::{BoundError, lower_bound};
use crate::measure::{Timed, timed};
use crate::table::{head, milliseconds, shown};
use crate::workload::{Case, Running};

/// What one repack measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepackFigures {
    /// The cluster: pods that run, and nodes.
    pub case: Case,
    /// Nodes taken down.
    pub removed: usize,
    /// Nodes launched.
    pub launched: usize,
    /// Batches.
    pub batches: usize,
    /// Pods that move.
    pub moves: usize,
    /// Pods on the nodes taken down.
    pub on_removed: usize,
    /// Least wall time of the runs, microseconds.
    pub wall_micros: u128,
    /// Least processor time of the runs over all threads, microseconds.
    pub cpu_micros: u128,
    /// The nodes before, micro-dollars an hour.
    pub price: u64,
    /// What is saved at the expected prices, micro-dollars an hour.
    pub saving: i64,
    /// The most that anybody could save: the price less a lower bound on what the pods cost.
    pub possible: u64,
    /// The most memory that was resident meanwhile, beyond what was before, KiB.
    pub memory_kib: Option<u64>,
    /// What the independent checker found; `None` if it was not asked.
    pub violations: Option<usize>,
}

impl RepackFigures {
    /// The share of the possible saving that is had, in percent.
    pub fn share(&self) -> f64 {
        // Micro-dollars an hour of any cluster are exact in a double.
        if self.possible == 0 { 100.0 } else { self.saving as f64 * 100.0 / self.possible as f64 }
    }

    /// Moves for each pod on a node that is taken down.
    pub fn moves_each(&self) -> f64 {
        self.moves as f64 / self.on_removed.max(1) as f64
    }
}

/// Repacks a cluster `runs` times.
///
/// # Errors
/// There is no bound to compare with.
pub fn measure_repack(
    running: &Running,
    runs: usize,
    checked: bool,
) -> Result<RepackFigures, BoundError> {
    let Timed { made, wall_micros, cpu_micros, memory_kib } =
        timed(runs, || repack_only(&running.input()));
    let view = &running.workload.view;
    let gone: BTreeSet<_> = made.batches.iter().flat_map(|batch| &batch.nodes).collect();
    let price = running.price();
    let least = lower_bound(running.anew())?;
    let case =
        Case { pods: view.pods().len(), nodes: running.nodes.len(), ..running.workload.case };
    Ok(RepackFigures {
        case,
        removed: made.report.removed,
        launched: made.report.launched,
        batches: made.batches.len(),
        moves: made.report.moves,
        on_removed: gone.into_iter().map(|node| view.pods_on(node).count()).sum(),
        wall_micros,
        cpu_micros,
        price,
        saving: made.report.saving_micro,
        possible: price.saturating_sub(least),
        memory_kib,
        violations: checked.then(|| check::check_repack(&running.input(), &made).len()),
    })
}

/// The head of a Markdown table of repacks.
pub fn repack_header() -> String {
    let columns = [
        "mix",
        "billing",
        "pods",
        "nodes",
        "removed",
        "launched",
        "batches",
        "moves",
        "moves a pod on removed nodes",
        "wall ms",
        "cpu ms",
        "$/h",
        "saved",
        "possible",
        "of the possible",
        "memory MiB",
        "violations",
    ];
    head(&columns)
}

/// One row of it.
pub fn repack_line(row: &RepackFigures) -> String {
    let percent = |part: f64| part * 100.0 / row.price.max(1) as f64;
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {:.1} | {:.1} | {:.2} | {:.2} % | {:.2} % | {:.1} % | {} | {} |",
        row.case.mix.name(),
        row.case.billing.name(),
        row.case.pods,
        row.case.nodes,
        row.removed,
        row.launched,
        row.batches,
        row.moves,
        row.moves_each(),
        milliseconds(row.wall_micros),
        milliseconds(row.cpu_micros),
        row.price as f64 / 1e6,
        percent(row.saving as f64),
        percent(row.possible as f64),
        row.share(),
        shown(row.memory_kib.map(|kib| kib as f64 / 1024.0), 1),
        shown(row.violations.map(|count| count as f64), 0),
    );
    text
}
