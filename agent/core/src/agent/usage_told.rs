//! What the leaders know of the pods' use, so that a report tells only what is new to them.

use std::collections::BTreeMap;

use drover_common::protocol::UsageDigest;
use drover_common::usage_news::{PodUses, apply, difference};

/// Reports under way of which is remembered what they told.
const MOST_SENT: usize = 4;

/// What was told, and what of that is known to have arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct UsageTold {
    known: Option<(u64, PodUses)>,
    sent: BTreeMap<u64, PodUses>,
}

impl UsageTold {
    /// Leaves in a report's use what is new to the leaders. Returns the report that it's news since,
    /// and the UIDs of pods that are measured no more.
    pub(super) fn tell(
        &mut self,
        sequence: u64,
        usage: Option<&mut UsageDigest>,
    ) -> (Option<u64>, Vec<String>) {
        let Some(usage) = usage else {
            // Unknown use is unknown to the leaders, too.
            *self = Self::default();
            return (None, Vec::new());
        };
        let (since, mut told) = match &self.known {
            Some((since, told)) => (Some(*since), told.clone()),
            None => (None, PodUses::new()),
        };
        let (changed, gone) = difference(&told, &usage.pods);
        apply(&mut told, &changed, &gone);
        usage.pods = changed;
        self.sent.insert(sequence, told);
        while self.sent.len() > MOST_SENT {
            self.sent.pop_first();
        }
        (since, gone)
    }

    /// A leader has answered a report.
    pub(super) fn answered(&mut self, sequence: u64, unknown: bool) {
        let told = self.sent.remove(&sequence);
        self.sent.retain(|later, _| *later > sequence);
        self.known = told.filter(|_| !unknown).map(|told| (sequence, told));
    }
}

#[cfg(test)]
mod tests {
    use drover_common::protocol::PodUsage;

    use super::*;

    fn digest(uses: &[(&str, u64)]) -> UsageDigest {
        let pod = |(uid, cpu): &(&str, u64)| PodUsage {
            uid: (*uid).to_owned(),
            cpu_milli_mean: *cpu,
            ..PodUsage::default()
        };
        UsageDigest { pods: uses.iter().map(pod).collect(), ..UsageDigest::default() }
    }

    fn tell(told: &mut UsageTold, sequence: u64, uses: &[(&str, u64)]) -> (Option<u64>, String) {
        let mut usage = digest(uses);
        let (since, gone) = told.tell(sequence, Some(&mut usage));
        let pods: Vec<&str> = usage.pods.iter().map(|pod| pod.uid.as_str()).collect();
        (since, format!("{} -{}", pods.join(" "), gone.join(" ")))
    }

    #[test]
    fn only_what_a_leader_has_answered_is_left_out() {
        let mut told = UsageTold::default();
        assert_eq!(tell(&mut told, 1, &[("a", 10), ("b", 10)]), (None, "a b -".to_owned()));
        // The first report is still under way.
        assert_eq!(tell(&mut told, 2, &[("a", 10), ("b", 90)]), (None, "a b -".to_owned()));
        told.answered(2, false);
        assert_eq!(tell(&mut told, 3, &[("a", 50), ("b", 90)]), (Some(2), "a -".to_owned()));
        told.answered(3, false);
        assert_eq!(tell(&mut told, 4, &[("a", 50)]), (Some(3), " -b".to_owned()));
        // Another replica leads, which knows nothing.
        told.answered(4, true);
        assert_eq!(tell(&mut told, 5, &[("a", 50)]), (None, "a -".to_owned()));
        told.answered(5, false);
        assert_eq!(told.tell(6, None), (None, Vec::new()));
        assert_eq!(tell(&mut told, 7, &[("a", 50)]), (None, "a -".to_owned()));
    }

    #[test]
    fn leaders_that_do_not_answer_cost_no_memory() {
        let mut told = UsageTold::default();
        for sequence in 0..100 {
            tell(&mut told, sequence, &[("a", 10)]);
        }
        assert_eq!(told.sent.len(), MOST_SENT);
        // The answer to a report long forgotten says nothing of what is known.
        told.answered(3, false);
        assert_eq!(tell(&mut told, 100, &[("a", 10)]), (None, "a -".to_owned()));
    }
}
