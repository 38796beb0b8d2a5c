//! One case, planned and measured.

use std::time::Instant;

use cpu_time::ProcessTime;
use drover_core::planner::{check, draft};

use crate::bound::{BoundError, lower_bound};
use crate::workload::{Case, Workload};

/// What one case measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The case.
    pub case: Case,
    /// Distinct shapes among the pods.
    pub shapes: usize,
    /// Nodes planned.
    pub nodes: usize,
    /// Pods without a place.
    pub left: usize,
    /// Least wall time of the runs, microseconds.
    pub wall_micros: u128,
    /// Least processor time of the runs over all threads, microseconds.
    pub cpu_micros: u128,
    /// The plan, micro-dollars an hour.
    pub price: u64,
    /// Plain grouped first fit, micro-dollars an hour; what it could not place is not in it.
    pub first_fit: u64,
    /// The lower bound, micro-dollars an hour.
    pub bound: u64,
    /// The most memory that was resident while planning, beyond what was before, KiB.
    pub memory_kib: Option<u64>,
    /// What the independent checker found; `None` if it was not asked.
    pub violations: Option<usize>,
}

impl Figures {
    /// Pods planned a second of processor time.
    pub fn pods_per_second(&self) -> u128 {
        self.case.pods as u128 * 1_000_000 / self.cpu_micros.max(1)
    }

    /// How much dearer than the bound, in percent.
    pub fn over_bound(&self) -> f64 {
        percent_over(self.price, self.bound)
    }

    /// How much dearer than the bound first fit is, in percent; `None` if it could place none that new nodes
    /// were planned for.
    pub fn first_fit_over_bound(&self) -> Option<f64> {
        let placed = self.first_fit > 0 || self.price == 0;
        placed.then(|| percent_over(self.first_fit, self.bound))
    }
}

fn percent_over(price: u64, bound: u64) -> f64 {
    // Micro-dollars an hour of any cluster are exact in a double.
    if bound == 0 { 0.0 } else { (price as f64 / bound as f64 - 1.0) * 100.0 }
}

/// Plans a case `runs` times.
///
/// # Errors
/// There is no bound to compare with.
pub fn measure(case: Case, runs: usize, checked: bool) -> Result<Figures, BoundError> {
    measure_workload(&Workload::new(case), runs, checked)
}

/// The same of a workload whose settings may have been changed.
///
/// # Errors
/// There is no bound to compare with.
pub fn measure_workload(
    workload: &Workload,
    runs: usize,
    checked: bool,
) -> Result<Figures, BoundError> {
    let Timed { made, wall_micros, cpu_micros, memory_kib } =
        timed(runs, || draft(&workload.input()));
    let violations = checked.then(|| check::check(&workload.input(), &made).len());
    Ok(Figures {
        case: workload.case,
        shapes: made.report.shapes,
        nodes: made.launches.len(),
        left: made.unschedulable.len(),
        wall_micros,
        cpu_micros,
        price: made.report.hourly_price_micro,
        first_fit: made.report.first_fit_price_micro,
        bound: lower_bound(workload)?,
        memory_kib,
        violations,
    })
}

/// What some work gave, and the least that a run of it took.
pub(crate) struct Timed<T> {
    pub(crate) made: T,
    pub(crate) wall_micros: u128,
    pub(crate) cpu_micros: u128,
    pub(crate) memory_kib: Option<u64>,
}

/// Works `runs` times, at least once.
pub(crate) fn timed<T>(runs: usize, work: impl Fn() -> T) -> Timed<T> {
    let before = forget_peak();
    let run = || {
        let (started, processor) = (Instant::now(), ProcessTime::now());
        let made = work();
        (made, started.elapsed().as_micros(), processor.elapsed().as_micros())
    };
    let (mut made, mut wall_micros, mut cpu_micros) = run();
    for _ in 1..runs {
        // Two results at once would count twice in the memory.
        drop(made);
        let (again, wall, cpu) = run();
        (made, wall_micros, cpu_micros) = (again, wall_micros.min(wall), cpu_micros.min(cpu));
    }
    let memory_kib = peak().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    Timed { made, wall_micros, cpu_micros, memory_kib }
}

/// Resets the peak of this process' resident memory, and returns what is resident now.
fn forget_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    peak()
}

/// The peak of this process' resident memory, KiB (`VmHWM`).
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
