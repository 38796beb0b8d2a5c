//! How reports went.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bench::times::percentiles;

/// Counts and times since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<Taken>);

#[derive(Debug, Default)]
pub(super) struct Taken {
    answers: Vec<Duration>,
    failures: BTreeMap<String, usize>,
    polls: usize,
}

impl Figures {
    fn with(&self, change: impl FnOnce(&mut Taken)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn answered(&self, time: Duration) {
        self.with(|taken| taken.answers.push(time));
    }

    pub(super) fn failed(&self, why: String) {
        self.with(|taken| *taken.failures.entry(why).or_default() += 1);
    }

    pub(super) fn polled(&self) {
        self.with(|taken| taken.polls += 1);
    }

    /// What there is, and begins anew.
    pub(super) fn take(&self) -> Taken {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Taken {
    /// The figures of so long a time as text.
    pub(super) fn line(self, time: Duration) -> String {
        let [median, nearly_all, most] = percentiles(&self.answers, [50, 99, 100]);
        let reason = self.failures.iter().max_by_key(|(_, count)| **count);
        let reason = reason.map(|(why, count)| format!(" ({count}: {why})")).unwrap_or_default();
        format!(
            "{:.0} reports a second answered: p50 {median:.3} s, p99 {nearly_all:.3} s, max {most:.3} s; {} not{reason}; \
             {:.0} polls a second ended",
            self.answers.len() as f64 / time.as_secs_f64(),
            self.failures.values().sum::<usize>(),
            self.polls as f64 / time.as_secs_f64(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_time_since_they_were_taken() {
        let figures = Figures::default();
        for milliseconds in (1..=100).rev() {
            figures.answered(Duration::from_millis(milliseconds));
        }
        for why in ["refused", "slow", "refused"] {
            figures.failed(why.to_owned());
        }
        let line = figures.take().line(Duration::from_secs(10));
        let wanted = "10 reports a second answered: p50 0.050 s, p99 0.099 s, max 0.100 s; 3 not (2: refused); 0 polls";
        assert!(line.starts_with(wanted), "{line}");
        let line = figures.take().line(Duration::from_secs(10));
        assert!(line.starts_with("0 reports"), "{line}");
    }
}
