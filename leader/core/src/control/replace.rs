//! Disruptions with replacements: decided in one entry, or not at all.

use std::collections::BTreeSet;

use drover_common::id::{DisruptionId, IntentId, NodeClaimName, NodeName};
use jiff::Timestamp;

use super::Control;
use super::intent::short_hash;
use super::leave::pressing_notice;
use super::problem::Subject;
use super::provisioning::alike;
use crate::command::{Disruption, DisruptionReason, LaunchIntent};
use crate::planner::Launch;
use crate::state::State;

impl Control {
    /// The launches of nodes' replacements; `None` if one can't be made now.
    pub(super) fn replacement_intents(
        &mut self,
        state: &State,
        launches: Vec<Launch>,
        replaced: &[NodeName],
        taken: &mut BTreeSet<NodeClaimName>,
        now: Timestamp,
    ) -> Option<Vec<LaunchIntent>> {
        let mut intents = Vec::new();
        for group in alike(launches) {
            let pool = group.first().map(|launch| launch.nodepool.clone())?;
            if self.launches_wait(state, &pool, now).is_some() {
                return None;
            }
            let subject = Subject::Replacements(pool);
            match self.intent_for(state, &group, taken, now) {
                Ok(intent) => {
                    self.problems.mended(&subject);
                    intents.extend(intent);
                }
                Err(error) => {
                    self.problems.tell(subject, error.to_string(), now);
                    return None;
                }
            }
        }
        for intent in &mut intents {
            intent.reason = format!("replaces {}: {}", names(replaced), intent.reason);
        }
        Some(intents)
    }

    /// Commits a disruption and the launches of its replacements in one entry. Returns whether it is proposed.
    pub(super) fn commit_replacing(
        &mut self,
        state: &State,
        claims: Vec<NodeClaimName>,
        intents: Vec<LaunchIntent>,
        reason: DisruptionReason,
        explanation: String,
        now: Timestamp,
    ) -> bool {
        let mut parts = vec![now.to_string(), explanation.clone()];
        parts.extend(claims.iter().map(|claim| claim.to_string()));
        let word = if intents.is_empty() { "DisruptionTerminating" } else { "DisruptionLaunching" };
        for claim in &claims {
            let note = format!("Disrupting NodeClaim: {} ({explanation})", reason.as_str());
            self.claim_event(claim, word, &note, false, now);
        }
        let disruption = Disruption {
            id: DisruptionId::from(format!("d-{}", short_hash(&parts, 10))),
            reason,
            deadline: self.drain_deadline(state, &claims, reason, now),
            notice: pressing_notice(state, &claims, reason, now),
            claims,
            replacements: intents
                .iter()
                .flat_map(|intent| intent.claims.iter().map(|plan| plan.name.clone()))
                .collect(),
            explanation,
        };
        let ids: Vec<IntentId> = intents.iter().map(|intent| intent.id.clone()).collect();
        let proposed = self.propose_disruption(disruption, intents, now);
        for id in ids.iter().filter(|_| proposed) {
            self.launches.begin(id);
            self.provisioning.expect(id);
        }
        proposed
    }
}

fn names(nodes: &[NodeName]) -> String {
    let shown: Vec<&str> = nodes.iter().take(3).map(NodeName::as_str).collect();
    let more = nodes.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}
