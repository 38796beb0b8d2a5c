//! Disruption budgets: how many nodes of a pool may be disrupted now.

use jiff::Timestamp;

use super::{Budget, DisruptionReason, NodePool, Schedule, parse_duration};

/// Why a budget can't be read. It then allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BudgetError {
    /// Its field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Budget {
    /// Whether it limits disruptions for this reason.
    pub fn covers(&self, reason: DisruptionReason) -> bool {
        self.reasons.is_empty() || self.reasons.contains(&reason)
    }

    /// Whether it is active: always, or for a duration from each hit of its schedule on.
    ///
    /// # Errors
    /// The field that can't be read.
    pub fn is_active(&self, now: Timestamp) -> Result<bool, BudgetError> {
        let (schedule, duration) = match (&self.schedule, &self.duration) {
            (None, None) => return Ok(true),
            (Some(schedule), Some(duration)) => (schedule, duration),
            (Some(_), None) => {
                return Err(BudgetError { field: "duration", reason: "missing".to_owned() });
            }
            (None, Some(_)) => {
                return Err(BudgetError { field: "schedule", reason: "missing".to_owned() });
            }
        };
        let schedule = Schedule::parse(schedule)
            .map_err(|error| BudgetError { field: "schedule", reason: error.to_string() })?;
        let duration = parse_duration(duration).ok_or_else(|| BudgetError {
            field: "duration",
            reason: format!("{duration:?} is not a duration of hours and minutes"),
        })?;
        Ok(schedule.last_hit(now).is_some_and(|hit| now.duration_since(hit) < duration))
    }

    /// How many of `total` nodes it allows to be disrupted; a percentage is rounded up.
    ///
    /// # Errors
    /// `nodes` is neither a number nor a percentage up to 100.
    pub fn allowed(&self, total: u32) -> Result<u32, BudgetError> {
        let bad = || BudgetError {
            field: "nodes",
            reason: format!("{:?} is neither a number nor a percentage", self.nodes),
        };
        let digits = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?
        };
        match self.nodes.strip_suffix('%') {
            Some(percent) => {
                let percent = digits(percent).filter(|percent| *percent <= 100).ok_or_else(bad)?;
                let nodes = (u64::from(total) * u64::from(percent)).div_ceil(100);
                Ok(u32::try_from(nodes).unwrap_or(u32::MAX))
            }
            None => digits(&self.nodes).ok_or_else(bad),
        }
    }
}

/// How many nodes of a pool may be disrupted at once for `reason`, of `total` managed and
/// initialized ones: the least of its active budgets for that reason, `u32::MAX` where none is
/// active. A budget that can't be read allows none. The caller takes off those that are not ready
/// or being disrupted already.
pub fn allowed_disruptions(
    pool: &NodePool,
    reason: DisruptionReason,
    total: u32,
    now: Timestamp,
) -> u32 {
    pool.spec
        .disruption
        .budgets
        .iter()
        .filter(|budget| budget.covers(reason))
        .filter_map(|budget| match budget.is_active(now) {
            Ok(false) => None,
            Ok(true) => Some(budget.allowed(total).unwrap_or(0)),
            Err(_) => Some(0),
        })
        .min()
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(budgets: Value) -> NodePool {
        serde_json::from_value(json!({
            "metadata": {"name": "default"},
            "spec": {
                "disruption": {"budgets": budgets},
                "template": {"spec": {
                    "requirements": [],
                    "nodeClassRef": {"group": "g", "kind": "k", "name": "n"},
                }},
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_least_active_budget_counts() {
        use DisruptionReason::{Drifted, Empty, Underutilized};
        let friday = "2026-08-21T09:30:00Z".parse().unwrap();
        let saturday = "2026-08-22T09:30:00Z".parse().unwrap();
        let working_hours = json!([
            {"nodes": "20%"},
            {"nodes": "5", "reasons": ["Empty", "Drifted"]},
            {"nodes": "0", "schedule": "0 9 * * mon-fri", "duration": "8h"},
        ]);
        for (budgets, reason, total, now, allowed) in [
            (json!([{"nodes": "10%"}]), Empty, 0, friday, 0),
            (json!([{"nodes": "10%"}]), Empty, 1, friday, 1),
            (json!([{"nodes": "10%"}]), Empty, 11, friday, 2),
            (json!([{"nodes": "100%"}]), Empty, u32::MAX, friday, u32::MAX),
            (json!([]), Empty, 3, friday, u32::MAX),
            (working_hours.clone(), Underutilized, 100, friday, 0),
            (working_hours.clone(), Underutilized, 100, saturday, 20),
            (working_hours, Drifted, 100, saturday, 5),
            (
                json!([{"nodes": "3", "schedule": "0 9 * * *", "duration": "30m"}]),
                Empty,
                9,
                friday,
                u32::MAX,
            ),
            (
                json!([{"nodes": "3", "schedule": "0 9 * * *", "duration": "31m"}]),
                Empty,
                9,
                friday,
                3,
            ),
            (json!([{"nodes": "3", "schedule": "bad", "duration": "1h"}]), Empty, 9, friday, 0),
            (json!([{"nodes": "3", "schedule": "0 9 * * *"}]), Empty, 9, friday, 0),
            (json!([{"nodes": "101%"}]), Empty, 9, friday, 0),
            (json!([{"nodes": "many"}]), Empty, 9, friday, 0),
        ] {
            let pool = pool(budgets.clone());
            assert_eq!(allowed_disruptions(&pool, reason, total, now), allowed, "{budgets}");
        }
    }

    #[test]
    fn without_a_word_a_tenth_of_the_nodes_may_go() {
        let pool: NodePool = serde_json::from_value(json!({
            "metadata": {"name": "default"},
            "spec": {"template": {"spec": {
                "requirements": [],
                "nodeClassRef": {"group": "g", "kind": "k", "name": "n"},
            }}},
        }))
        .unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(allowed_disruptions(&pool, DisruptionReason::Empty, 30, now), 3);
    }
}
