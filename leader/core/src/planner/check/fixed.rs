//! The check of what is planned without pods: the nodes of a static pool.

use drover_common::id::NodePoolName;

use super::{Violation, check_limits, check_offered, reservations, violation};
use crate::planner::{Launch, Plan, PlanInput};

/// Everything in launches for a static pool that the pool, its limits or what is reserved would not
/// allow.
pub fn check_static(
    input: &PlanInput<'_>,
    pool: &NodePoolName,
    count: usize,
    launches: &[Launch],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    if launches.len() > count {
        let rule = format!("gets {} nodes where {count} are missing", launches.len());
        violations.push(violation(pool.as_str(), rule));
    }
    for (number, launch) in launches.iter().enumerate() {
        let subject = format!("launch {number}");
        if launch.nodepool != *pool {
            violations.push(violation(&subject, format!("is of NodePool {}", launch.nodepool)));
        }
        if !launch.pods.is_empty() {
            violations.push(violation(&subject, "is for pods"));
        }
        check_offered(input, number, launch, &mut violations);
    }
    check_limits(input, launches, &mut violations);
    let plan = Plan { launches: launches.to_vec(), ..Plan::default() };
    reservations::check(input, &plan, &mut violations);
    violations
}
