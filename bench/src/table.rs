//! Figures as a table.

use std::fmt::Write as _;

use crate::measure::Figures;

/// The head of a Markdown table of figures.
pub fn header() -> String {
    let columns = [
        "mix",
        "billing",
        "pods",
        "nodes there",
        "shapes",
        "new nodes",
        "left",
        "wall ms",
        "cpu ms",
        "pods/s",
        "$/h",
        "over bound",
        "first fit",
        "memory MiB",
        "violations",
    ];
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

/// One row of it.
pub fn line(row: &Figures) -> String {
    let mut text = String::new();
    let milliseconds = |micros: u128| micros as f64 / 1000.0;
    let shown = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    };
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {:.2} | {:+.2} % | {:+.2} % | {} | {} |",
        row.case.mix.name(),
        row.case.billing.name(),
        row.case.pods,
        row.case.nodes,
        row.shapes,
        row.nodes,
        row.left,
        milliseconds(row.wall_micros),
        milliseconds(row.cpu_micros),
        row.pods_per_second(),
        row.price as f64 / 1e6,
        row.over_bound(),
        row.first_fit_over_bound(),
        shown(row.memory_kib.map(|kib| kib as f64 / 1024.0), 1),
        shown(row.violations.map(|count| count as f64), 0),
    );
    text
}
