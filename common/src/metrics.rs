//! Metrics in Prometheus' text format.

use std::fmt::{Display, Write};

use crate::times::Times;

/// What a page of metrics is.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// The page, as it stands.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a metric of this type.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the metric that was begun.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, content)) in labels.iter().enumerate() {
            self.text.push(if position == 0 { '{' } else { ',' });
            let content = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{content}\"");
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A gauge of one sample.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    /// A counter of one sample.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }

    /// A histogram; its name says that it is of seconds.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Times) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in times.within() {
            self.line(&bucket, &[("le", &(bound as f64 / 1e3).to_string())], count);
        }
        self.line(&bucket, &[("le", "+Inf")], times.count);
        self.line(&format!("{name}_sum"), &[], times.milliseconds as f64 / 1e3);
        self.line(&format!("{name}_count"), &[], times.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_prometheus_reads() {
        let mut page = Page::default();
        page.gauge("a", "Help.", 1);
        page.line("b", &[("x", "1"), ("y", "q\"\\")], 0.5);
        let expected = "# HELP a Help.\n# TYPE a gauge\na 1\nb{x=\"1\",y=\"q\\\"\\\\\"} 0.5\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn histograms_count_from_the_lowest_bound_up() {
        let mut page = Page::default();
        let mut times = Times { count: 4, milliseconds: 90_230_500, ..Times::default() };
        // One within 50 ms, two within 100 s, one longer than any bound.
        (times.buckets[0], times.buckets[12]) = (1, 2);
        page.histogram("h_seconds", "Help.", &times);
        let text = page.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["# HELP h_seconds Help.", "# TYPE h_seconds histogram"]);
        assert_eq!(lines[2], "h_seconds_bucket{le=\"0.05\"} 1");
        assert_eq!(lines[13], "h_seconds_bucket{le=\"90\"} 1");
        assert_eq!(lines[14], "h_seconds_bucket{le=\"100\"} 3");
        let last = ["h_seconds_bucket{le=\"86400\"} 3", "h_seconds_bucket{le=\"+Inf\"} 4"];
        assert_eq!(lines[21..23], last);
        assert_eq!(lines[23..], ["h_seconds_sum 90230.5", "h_seconds_count 4"]);
    }
}
