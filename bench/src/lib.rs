//! What the planner is measured with: workloads that are the same on every machine, a lower bound on
//! what they cost, and a stopwatch that counts the processor's time.

mod bound;
mod measure;
mod table;
mod workload;

pub use bound::{BoundError, lower_bound};
pub use measure::{Figures, measure, measure_workload};
pub use table::{header, line};
pub use workload::{Billing, Case, Mix, UnknownName, Workload};
