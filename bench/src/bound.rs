//! A lower bound on what new nodes for the waiting pods must cost, whoever plans them.
//!
//! It is the dual of a relaxation in which pods may be cut into pieces: give every resource a price
//! by class of pods (pods that may use the same offerings), such that no node that can be bought is
//! worth more than it costs; then all pods together are worth no more than any plan costs. Pods of
//! which a node holds but one (anti-affinity between hosts) have a price of their own beside. Free
//! room on nodes that are there is taken off at its full worth.
//!
//! The rules are those of the planner: its limit on the size of nodes, no GPU for pods that ask for
//! none. Constraints that are left out only make the bound lower. The prices come from a linear
//! program in floating point; they are rounded down and proved in integers, offering by offering, so
//! that the bound holds whatever the solver did.

mod demand;
mod program;
mod supply;

use crate::workload::Workload;

/// Why there is no bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// The solver gave up.
    #[error("the linear program can't be solved: {0}")]
    Solver(String),
    /// The workload has something the bound does not know; leaving it out could make it too high.
    #[error("{0} is not known to the bound")]
    Unknown(String),
}

/// Resources that are counted, in the order of every vector.
const RESOURCES: usize = 4;
/// Amounts by resource: thousandths of a core, KiB, pods, GPUs.
type Amounts = [i64; RESOURCES];

/// The bound in micro-dollars an hour, rounded down.
///
/// # Errors
/// The solver fails, or the workload has NodePools or DaemonSets of a kind the bound does not know.
pub fn lower_bound(workload: &Workload) -> Result<u64, BoundError> {
    let offers = supply::offers(workload)?;
    let demands = demand::demands(workload, &offers);
    let demands = demand::split_by_zone(demands, &offers);
    let (classes, demands) = demand::classes(demands, &offers, workload.settings.max_node_vcpus);
    let rooms = supply::free_rooms(workload, &demands, classes.len())?;
    program::bound(&offers, &classes, &demands, &rooms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Billing, Case, Mix};
    use drover_core::planner::plan;

    #[test]
    fn no_plan_is_cheaper() {
        for mix in Mix::ALL {
            for billing in Billing::ALL {
                for nodes in [0, 30] {
                    let case = Case { mix, pods: 400, nodes, billing };
                    let workload = Workload::new(case);
                    let made = plan(&workload.input());
                    assert!(made.unschedulable.is_empty(), "{case}: {:?}", made.unschedulable);
                    let bound = lower_bound(&workload).unwrap();
                    assert!(
                        bound <= made.report.hourly_price_micro,
                        "{case}: bound {bound}, plan {}",
                        made.report.hourly_price_micro
                    );
                    // It is of use only if it is near.
                    assert!(
                        nodes > 0 || bound * 2 > made.report.hourly_price_micro,
                        "{case}: bound {bound}, plan {}",
                        made.report.hourly_price_micro
                    );
                }
            }
        }
    }
}
