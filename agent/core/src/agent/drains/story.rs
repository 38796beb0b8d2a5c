//! Why the node is drained, as time goes: what EC2 and the leaders say, what of it has reached the agent,
//! and what that permits. All of it is the test's own reckoning, in milliseconds.

use drover_common::labels;
use serde_json::{Value, json};

use super::plan::{Event, PodPlan};
use super::world::at;
use crate::notice::{Answer, NoticePath};

/// Pods have to be gone so long before EC2 takes the machine.
const RESERVE: i64 = 5_000;
/// EC2 has to say "none" for so long.
const WITHDRAWN_AFTER: i64 = 10_000;
const MAINTENANCE_LEAD: i64 = 30 * 60_000;
/// An answer of the API server that shows the Node comes so long after the Node was as it shows.
const ANSWER: i64 = 500;

/// A disruption as the Node bears it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Marks {
    pub(super) id: u32,
    deadline: Option<i64>,
    reason: &'static str,
}

/// One of EC2's notices as the agent knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    told: Option<i64>,
    absent_since: Option<i64>,
}

impl Heard {
    fn hear(&mut self, said: Option<i64>, now: i64, which: impl Fn(i64, i64) -> i64) {
        if let Some(said) = said {
            self.absent_since = None;
            self.told = Some(self.told.map_or(said, |told| which(told, said)));
        } else if now >= *self.absent_since.get_or_insert(now) + WITHDRAWN_AFTER {
            self.told = None;
        }
    }
}

#[derive(Debug)]
pub(super) struct Story {
    action: &'static str,
    spot: Option<i64>,
    rebalance: Option<i64>,
    maintenance: Option<i64>,
    auto_scaling: Option<i64>,
    heard_spot: Heard,
    heard_maintenance: Heard,
    heard_auto_scaling: Heard,
    /// What the Node bore, and since when.
    marks: Vec<(i64, Option<Marks>)>,
    disruptions: u32,
}

impl Story {
    pub(super) fn new(action: &'static str) -> Self {
        Self {
            action,
            spot: None,
            rebalance: None,
            maintenance: None,
            auto_scaling: None,
            heard_spot: Heard::default(),
            heard_maintenance: Heard::default(),
            heard_auto_scaling: Heard::default(),
            marks: vec![(i64::MIN, None)],
            disruptions: 0,
        }
    }

    /// What the Node bears now.
    pub(super) fn marks(&self) -> Option<&Marks> {
        self.marks.last().and_then(|(_, marks)| marks.as_ref())
    }

    /// Returns the patch of the Node that it comes with.
    pub(super) fn happen(&mut self, event: Event, now: i64) -> Option<Value> {
        match event {
            Event::Spot(lead) => self.spot = Some(now + lead * 1000),
            Event::SpotGone => self.spot = None,
            Event::Rebalance => self.rebalance = Some(now),
            Event::Maintenance(lead) => self.maintenance = Some(now + lead * 1000),
            Event::MaintenanceGone => self.maintenance = None,
            Event::AutoScaling(ends) => self.auto_scaling = ends.then_some(now),
            Event::Disrupt(lead, reason) => {
                let deadline = lead.map(|lead| now + lead * 1000);
                let marks = match self.marks().cloned() {
                    // Leaders only ever tighten what is under way.
                    Some(Marks { id, deadline: known, .. }) => {
                        let deadline = known.into_iter().chain(deadline).min();
                        Marks { id, deadline, reason }
                    }
                    None => {
                        self.disruptions += 1;
                        Marks { id: self.disruptions, deadline, reason }
                    }
                };
                self.marks.push((now, Some(marks)));
                return Some(self.patch());
            }
            Event::CallOff => {
                self.marks.push((now, None));
                return Some(self.patch());
            }
        }
        None
    }

    fn patch(&self) -> Value {
        let marks = self.marks();
        let taint = json!([{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]);
        json!({
            "metadata": {"annotations": {
                labels::DISRUPTION: marks.map(|marks| format!("d-{}", marks.id)),
                labels::DISRUPTION_DEADLINE:
                    marks.and_then(|marks| marks.deadline).map(|time| at(time).to_string()),
                labels::DISRUPTION_REASON: marks.map(|marks| marks.reason),
            }},
            "spec": {"taints": marks.map(|_| taint)},
        })
    }

    /// What IMDS answers, and that the agent hears it now.
    pub(super) fn answer(&mut self, path: NoticePath, now: i64) -> Answer {
        let body = match path {
            NoticePath::SpotAction => {
                // The first time counts, or an earlier one.
                self.heard_spot.hear(self.spot, now, i64::min);
                self.spot.map(|time| {
                    json!({"action": self.action, "time": at(time).to_string()}).to_string()
                })
            }
            NoticePath::Rebalance => {
                self.rebalance.map(|time| json!({"noticeTime": at(time).to_string()}).to_string())
            }
            NoticePath::AutoScaling => {
                self.heard_auto_scaling.hear(self.auto_scaling, now, i64::min);
                let state = if self.auto_scaling.is_some() { "Terminated" } else { "InService" };
                Some(state.to_owned())
            }
            NoticePath::Maintenance => {
                self.heard_maintenance.hear(self.maintenance, now, |_, said| said);
                self.maintenance.map(|time| {
                    let begins = at(time).strftime("%d %b %Y %H:%M:%S GMT").to_string();
                    json!([{"NotBefore": begins, "Code": "system-reboot", "State": "active",
                        "EventId": "instance-event-1"}])
                    .to_string()
                })
            }
        };
        body.map_or(Answer::Absent, Answer::Body)
    }

    /// When EC2 takes the machine.
    pub(super) fn death(&self) -> i64 {
        self.heard_spot.told.unwrap_or(i64::MAX)
    }

    fn grounds(&self, marks: Option<Marks>, now: i64) -> Grounds {
        let is_due = |begins: &i64| begins - now <= MAINTENANCE_LEAD;
        Grounds {
            spot_end: self.heard_spot.told.map(|time| time - RESERVE),
            maintenance_end: self.heard_maintenance.told.filter(is_due).map(|time| time - RESERVE),
            auto_scaling: self.heard_auto_scaling.told.is_some(),
            marks,
        }
    }

    /// All that the agent may have for true, for it may see the Node as it was a while ago.
    pub(super) fn possible(&self, watch_delay: i64, now: i64) -> Vec<Grounds> {
        let since = now - watch_delay.max(ANSWER) - ANSWER;
        let ends = self.marks.iter().skip(1).map(|(from, _)| *from).chain([i64::MAX]);
        let seen = self.marks.iter().zip(ends).filter(|(_, end)| *end >= since);
        seen.map(|((_, marks), _)| self.grounds(marks.clone(), now)).collect()
    }
}

/// What a drain may go by at a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grounds {
    /// The last moment for pods before a spot loss.
    spot_end: Option<i64>,
    maintenance_end: Option<i64>,
    auto_scaling: bool,
    pub(super) marks: Option<Marks>,
}

impl Grounds {
    /// Whether there is a reason to drain at all. A recommendation to rebalance is none.
    pub(super) fn is_any(&self) -> bool {
        self.spot_end.is_some()
            || self.maintenance_end.is_some()
            || self.auto_scaling
            || self.marks.is_some()
    }

    /// When budgets give way: for a spot loss and by the time that the Node bears, for nothing else.
    pub(super) fn budgets_end(&self) -> Option<i64> {
        let borne = self.marks.as_ref().and_then(|marks| marks.deadline);
        self.spot_end.into_iter().chain(borne).min()
    }

    /// Whether nobody's consent is asked.
    fn hurries(&self) -> bool {
        self.spot_end.is_some()
            || self.marks.as_ref().is_some_and(|marks| marks.reason == "spot-terminate")
    }

    /// Whether a pod that asks not to be disrupted, or that others may need, may be evicted all the same.
    pub(super) fn may_press(&self, pod: &PodPlan, now: i64) -> bool {
        let end = self.budgets_end().into_iter().chain(self.maintenance_end).min();
        self.hurries() || end.is_some_and(|end| now >= pod.last_moment(end))
    }

    /// Whether it has to be. Maintenance whose time has passed presses nobody.
    fn has_to_press(&self, pod: &PodPlan, now: i64) -> bool {
        let to_come = self.maintenance_end.filter(|&end| now < end);
        let end = self.budgets_end().into_iter().chain(to_come).min();
        self.hurries() || end.is_some_and(|end| now >= pod.last_moment(end))
    }

    /// Whether nothing but the API server can keep the pod from being deleted.
    pub(super) fn frees_by_deletion(&self, pod: &PodPlan, now: i64) -> bool {
        self.budgets_end().is_some_and(|end| now >= pod.last_moment(end))
    }

    /// The same of its eviction.
    pub(super) fn frees_by_eviction(&self, pod: &PodPlan, now: i64) -> bool {
        let consents = !pod.critical && !pod.is_shy(now);
        self.is_any() && pod.budgets.is_empty() && (consents || self.has_to_press(pod, now))
    }
}
