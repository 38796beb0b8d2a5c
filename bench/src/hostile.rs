//! What hostile input takes.

use std::fmt::Write as _;

use drover_core::planner::{check, draft};

use crate::measure::{Timed, timed};
use crate::table::{head, milliseconds, shown};
use crate::workload::{Hostile, Workload};

/// What one hostile cluster took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostileFigures {
    /// What is hard about it.
    pub of: Hostile,
    /// Pods that wait.
    pub pods: usize,
    /// Distinct shapes among them.
    pub shapes: usize,
    /// Nodes planned.
    pub nodes: usize,
    /// Pods with a place.
    pub planned: usize,
    /// Pods without.
    pub left: usize,
    /// Wall time, microseconds.
    pub wall_micros: u128,
    /// Processor time over all threads, microseconds.
    pub cpu_micros: u128,
    /// The most memory that was resident while planning, beyond what was before, KiB.
    pub memory_kib: Option<u64>,
    /// What the independent checker found; `None` if it was not asked.
    pub violations: Option<usize>,
}

/// Plans a hostile cluster once.
pub fn measure_hostile(of: Hostile, pods: usize, checked: bool) -> HostileFigures {
    let workload = Workload::hostile(of, pods);
    let Timed { made, wall_micros, cpu_micros, memory_kib } = timed(1, || draft(&workload.input()));
    HostileFigures {
        of,
        pods,
        shapes: made.report.shapes,
        nodes: made.launches.len(),
        planned: made.report.on_new + made.report.on_existing,
        left: made.unschedulable.len(),
        wall_micros,
        cpu_micros,
        memory_kib,
        violations: checked.then(|| check::check(&workload.input(), &made).len()),
    }
}

/// The head of a Markdown table of hostile clusters.
pub fn hostile_header() -> String {
    head(&[
        "hostile",
        "pods",
        "shapes",
        "new nodes",
        "planned",
        "left",
        "wall ms",
        "cpu ms",
        "memory MiB",
        "violations",
    ])
}

/// One row of it.
pub fn hostile_line(row: &HostileFigures) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {} |",
        row.of.name(),
        row.pods,
        row.shapes,
        row.nodes,
        row.planned,
        row.left,
        milliseconds(row.wall_micros),
        milliseconds(row.cpu_micros),
        shown(row.memory_kib.map(|kib| kib as f64 / 1024.0), 1),
        shown(row.violations.map(|count| count as f64), 0),
    );
    text
}
