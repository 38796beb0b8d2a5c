//! A repack for people: what would go, what for, and why the rest stays.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use drover_common::id::NodeName;
use drover_core::planner::{Batch, MoveTarget, RepackPlan};

/// Nodes that are named where many are alike.
const MOST_NAMES: usize = 3;
/// Batches that are told one by one.
const MOST_BATCHES: usize = 20;

/// The repack as text.
pub(super) fn text(plan: &RepackPlan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, plan);
    text
}

fn dollars(micro: i64) -> f64 {
    micro as f64 / 1e6
}

fn write(out: &mut String, plan: &RepackPlan) -> fmt::Result {
    let report = &plan.report;
    writeln!(
        out,
        "\nconsolidation: {} of {} managed nodes go, {} are launched, {} pods move; saves ${:.4}/h",
        report.removed,
        report.nodes,
        report.launched,
        report.moves,
        dollars(report.saving_micro)
    )?;
    for batch in plan.batches.iter().take(MOST_BATCHES) {
        self::batch(out, batch)?;
    }
    if let Some(more @ 1..) = plan.batches.len().checked_sub(MOST_BATCHES) {
        writeln!(out, "  and {more} disruptions more")?;
    }
    let mut stays: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for left in &plan.left {
        stays.entry(&left.reason).or_default().push(left.node.as_str());
    }
    for (reason, nodes) in stays {
        writeln!(out, "  stays: {}: {reason}", named(&nodes))?;
    }
    Ok(())
}

fn batch(out: &mut String, batch: &Batch) -> fmt::Result {
    let names: Vec<&str> = batch.nodes.iter().map(NodeName::as_str).collect();
    let moved = |new: bool| {
        let of_kind = |to: &MoveTarget| matches!(to, MoveTarget::Replacement(_)) == new;
        batch.moves.iter().filter(|one| of_kind(&one.to)).count()
    };
    write!(
        out,
        "  wave {}: {:?} {}: ${:.4}/h less",
        batch.wave + 1,
        batch.reason,
        named(&names),
        dollars(batch.saving_micro)
    )?;
    if moved(false) > 0 {
        write!(out, "; {} pods to nodes that stay", moved(false))?;
    }
    if !batch.replacements.is_empty() {
        let types: Vec<&str> = batch
            .replacements
            .iter()
            .filter_map(|launch| Some(launch.offerings.first()?.instance_type.as_str()))
            .collect();
        write!(out, "; {} pods to new {}", moved(true), named(&types))?;
    }
    writeln!(out)
}

fn named(names: &[&str]) -> String {
    let shown = names.get(..MOST_NAMES).unwrap_or(names).join(", ");
    match names.len().checked_sub(MOST_NAMES) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}
