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
    head(&columns)
}

pub(crate) fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

pub(crate) fn milliseconds(micros: u128) -> f64 {
    micros as f64 / 1000.0
}

/// A number that may not have been taken.
pub(crate) fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

/// One row of it.
pub fn line(row: &Figures) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {:.2} | {:+.2} % | {} | {} | {} |",
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
        row.first_fit_over_bound().map_or_else(|| "-".to_owned(), |over| format!("{over:+.2} %")),
        shown(row.memory_kib.map(|kib| kib as f64 / 1024.0), 1),
        shown(row.violations.map(|count| count as f64), 0),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::measure;
    use crate::workload::{Billing, Case, Mix};

    #[test]
    fn where_first_fit_places_nobody_it_has_no_figure() {
        let row = |mix| {
            let case = Case { mix, billing: Billing::OnDemand, pods: 100, nodes: 0 };
            let figures = measure(case, 1, false).unwrap();
            line(&figures).split(" | ").nth(12).map(str::to_owned).unwrap()
        };
        assert_eq!(row(Mix::Karpenter), "-");
        assert!(row(Mix::Generic).ends_with(" %"));
    }
}
