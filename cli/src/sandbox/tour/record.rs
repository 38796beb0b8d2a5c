//! What the tour saw, and whether it was what should have happened.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_common::crd::NodeClaim;
use serde_json::Value;

use super::super::Stage;

/// Figures and checks.
#[derive(Debug, Default)]
pub(crate) struct Record {
    checks: Vec<(String, bool)>,
    rows: Vec<(String, String)>,
}

impl Record {
    /// Notes whether something was so, and says so where it was not.
    pub(crate) fn check(&mut self, stage: &Stage, what: &str, passed: bool) {
        if !passed {
            stage.narrator.tell(&format!("CHECK FAILED: {what}"));
        }
        self.checks.push((what.to_owned(), passed));
    }

    /// Notes a figure for the summary.
    pub(crate) fn row(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push((name.to_owned(), value.into()));
    }

    /// Whether every check passed.
    pub(crate) fn all_passed(&self) -> bool {
        self.checks.iter().all(|(_, passed)| *passed)
    }

    /// Asks the cloud what it counted, and compares instances with NodeClaims in both directions.
    pub(crate) async fn audit(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let audit = stage.cloud.audit().await?;
        let count = |field: &str| audit.get(field).and_then(Value::as_u64);
        let repeats = count("repeated_launches");
        self.row(
            "launches",
            count("launches").map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
        );
        self.check(stage, "no launch was made twice", repeats == Some(0));
        let claimed: BTreeSet<String> =
            stage.cluster.snapshot().await?.claims.iter().filter_map(instance_of).collect();
        let instances = stage.cloud.instances().await?;
        let interrupted = instances.iter().filter(|instance| instance.notices.spot.is_some());
        self.row("interruptions", interrupted.count().to_string());
        let alive: BTreeSet<String> = instances
            .into_iter()
            .filter(|instance| instance.state == "running" || instance.state == "pending")
            .map(|instance| instance.id)
            .collect();
        let leaked: Vec<&String> = alive.difference(&claimed).collect();
        if !leaked.is_empty() {
            stage.narrator.tell(&format!("instances without a NodeClaim: {leaked:?}"));
        }
        self.check(stage, "every running instance has its NodeClaim", leaked.is_empty());
        Ok(())
    }

    /// The summary, line by line.
    pub(crate) fn table(&self) -> Vec<String> {
        let passed = self.checks.iter().filter(|(_, passed)| *passed).count();
        let mut rows = self.rows.clone();
        rows.push(("checks passed".to_owned(), format!("{passed} of {}", self.checks.len())));
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let mut lines: Vec<String> =
            rows.iter().map(|(name, value)| format!("  {name:<width$}  {value}")).collect();
        let failed = self.checks.iter().filter(|(_, passed)| !*passed);
        lines.extend(failed.map(|(what, _)| format!("  FAILED  {what}")));
        lines
    }
}

/// The instance that a claim's status names.
pub(crate) fn instance_of(claim: &NodeClaim) -> Option<String> {
    let provider_id = claim.status.as_ref()?.provider_id.as_ref()?;
    drover_common::id::instance_of_provider_id(provider_id).map(|instance| instance.to_string())
}

/// Seconds with one decimal, or that it did not happen.
pub(crate) fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "never".to_owned(), |d| format!("{:.1} s", d.as_secs_f64()))
}
