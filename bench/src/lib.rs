//! What the planner is measured with: workloads that are the same on every machine, a lower bound on
//! what they cost, and a stopwatch that counts the processor's time.

mod bound;
mod hostile;
mod measure;
mod repack;
mod table;
mod workload;

pub use bound::{BoundError, lower_bound};
pub use hostile::{HostileFigures, hostile_header, hostile_line, measure_hostile};
pub use measure::{Figures, measure, measure_workload};
pub use repack::{RepackFigures, measure_repack, repack_header, repack_line};
pub use table::{header, line};
pub use workload::{Billing, Case, Hostile, Mix, Running, UnknownName, Workload};
