//! The answer for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use drover_common::resources::ResourceName;
use drover_core::offline::{Answer, AnsweredUnschedulable, Fleet, FleetRow};

/// Pods that are named where many have one reason.
const MOST_NAMES: usize = 3;
/// Hours that a month is taken to have, as AWS does.
const HOURS_A_MONTH: f64 = 730.0;

/// The answer as text.
pub(super) fn table(fleet: &Fleet, answer: &Answer) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, fleet, answer);
    text
}

fn write(out: &mut String, fleet: &Fleet, answer: &Answer) -> fmt::Result {
    let summary = &answer.summary;
    writeln!(
        out,
        "{} waiting: {} on nodes that are there or on their way, {} on {}, {} without a place",
        count(summary.pods, "pod"),
        summary.on_existing,
        summary.on_new,
        count(summary.launches, "new node"),
        summary.unschedulable,
    )?;
    if !fleet.rows.is_empty() {
        out.push('\n');
        nodes(out, fleet)?;
        out.push('\n');
        costs(out, fleet)?;
    }
    left(out, &answer.unschedulable)
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn dollars(micro: u64) -> f64 {
    micro as f64 / 1e6
}

/// Nodes by pool and type.
fn nodes(out: &mut String, fleet: &Fleet) -> fmt::Result {
    let head =
        ["NODEPOOL", "TYPE", "CAPACITY", "NODES", "PODS", "CPU", "MEMORY", "$/HOUR", "$/MONTH"];
    let mut rows = vec![head.map(str::to_owned)];
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    for (key, row) in &fleet.rows {
        let nodes = if row.nodes_now == row.nodes_after {
            row.nodes_now.to_string()
        } else {
            format!("{} -> {}", row.nodes_now, row.nodes_after)
        };
        let hourly = dollars(row.price_after);
        let unknown = row.unpriced > 0 && row.price_after == 0;
        let price = |amount: String| if unknown { "?".to_owned() } else { amount };
        rows.push([
            or_dash(&key.nodepool),
            or_dash(&key.instance_type),
            or_dash(&key.capacity_type),
            nodes,
            row.pods_after.to_string(),
            share(row, &ResourceName::Cpu),
            share(row, &ResourceName::Memory),
            price(format!("{hourly:.4}")),
            price(format!("{:.2}", hourly * HOURS_A_MONTH)),
        ]);
    }
    aligned(out, &rows, 3)
}

/// How much of a resource is requested afterwards.
fn share(row: &FleetRow, name: &ResourceName) -> String {
    let offered = row.allocatable_after.get(name);
    if offered <= 0 {
        return "-".to_owned();
    }
    let requested = row.requested_after.get(name);
    format!("{:.0}%", requested as f64 / offered as f64 * 100.0)
}

fn costs(out: &mut String, fleet: &Fleet) -> fmt::Result {
    let (now, after) = fleet.prices();
    let (now, after) = (dollars(now), dollars(after));
    let row = |name: &str, hourly: f64, sign: &str| {
        let sign = if hourly < 0.0 { "-" } else { sign };
        let hourly = hourly.abs();
        [
            name.to_owned(),
            format!("{sign}${hourly:.4}"),
            format!("{sign}${:.2}", hourly * HOURS_A_MONTH),
        ]
    };
    let head = ["COST", "PER HOUR", "PER MONTH"].map(str::to_owned);
    let rows =
        [head, row("now", now, ""), row("after", after, ""), row("change", after - now, "+")];
    aligned(out, &rows, 1)?;
    let unpriced: usize = fleet.rows.values().map(|row| row.unpriced).sum();
    if unpriced > 0 {
        writeln!(out, "{} of no known price, counted as free", count(unpriced, "node"))?;
    }
    Ok(())
}

/// Columns two spaces apart; those from `numbers` on are set to the right.
fn aligned<const N: usize>(out: &mut String, rows: &[[String; N]], numbers: usize) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if index == 0 { "" } else { "  " };
            if index < numbers {
                write!(line, "{gap}{cell:<width$}")?;
            } else {
                write!(line, "{gap}{cell:>width$}")?;
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Pods without a place, by what stands in their way.
fn left(out: &mut String, entries: &[AnsweredUnschedulable]) -> fmt::Result {
    let mut by_reasons: BTreeMap<Vec<(&str, &str)>, Vec<&str>> = BTreeMap::new();
    for entry in entries {
        let reasons: Vec<(&str, &str)> =
            entry.reasons.iter().map(|r| (r.node_pool.as_str(), r.reason.as_str())).collect();
        by_reasons.entry(reasons).or_default().push(&entry.pod);
    }
    if by_reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{} without a place:", count(entries.len(), "pod"))?;
    for (reasons, pods) in by_reasons {
        let shown: Vec<&str> = pods.iter().take(MOST_NAMES).copied().collect();
        match pods.len().checked_sub(MOST_NAMES) {
            Some(more @ 1..) => writeln!(out, "  {} and {more} more", shown.join(", "))?,
            _ => writeln!(out, "  {}", shown.join(", "))?,
        }
        for (pool, reason) in reasons {
            if pool.is_empty() {
                writeln!(out, "    {reason}")?;
            } else {
                writeln!(out, "    NodePool {pool}: {reason}")?;
            }
        }
    }
    Ok(())
}
