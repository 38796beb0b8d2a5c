//! What is told on NodeOverlays: whether each is in force.

use std::sync::Arc;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::crd::{Condition, ConditionStatus, NodeOverlay};
use jiff::Timestamp;
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::object::{condition, ready};
use crate::planner::overlay_faults;
use crate::state::State;

/// The overlays, pools and catalogues that were judged last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OverlayGround {
    generations: Vec<(String, Option<i64>)>,
    catalog_version: u64,
}

impl Control {
    /// Judges overlays when something they depend on has changed, and says so in their status.
    pub(super) fn report_overlays(&mut self, state: &State, now: Timestamp) {
        if self.view.overlays().is_empty() || !self.discovery.is_ready(&self.calls) {
            return;
        }
        let overlays: Vec<(String, Arc<NodeOverlay>)> =
            self.view.overlays().iter().map(|(name, o)| (name.clone(), Arc::clone(o))).collect();
        let pools = self.view.pools().values().map(|pool| &pool.metadata);
        let metadata = overlays.iter().map(|(_, overlay)| &overlay.metadata).chain(pools);
        let ground = OverlayGround {
            generations: metadata
                .map(|m| (m.name.clone().unwrap_or_default(), m.generation))
                .collect(),
            catalog_version: self.discovery.version(),
        };
        if ground != self.provisioning.overlay_ground {
            self.provisioning.overlay_faults = self.plan_with(state, now, overlay_faults);
            self.provisioning.overlay_ground = ground;
        }
        for (name, overlay) in overlays {
            let mut status = overlay.status.clone().unwrap_or_default();
            let generation = overlay.metadata.generation;
            let kind = "ValidationSucceeded";
            let said = match self.provisioning.overlay_faults.get(&name) {
                None => condition(kind, ConditionStatus::True, "", "", generation, now),
                Some(fault) => {
                    let no = ConditionStatus::False;
                    condition(kind, no, fault.reason, &fault.message, generation, now)
                }
            };
            Condition::set(&mut status.conditions, said);
            let sum = ready(&status.conditions, &[kind], generation, now);
            Condition::set(&mut status.conditions, sum);
            if overlay.status.as_ref() == Some(&status) {
                continue;
            }
            let Ok(status) = serde_json::to_value(&status) else { continue };
            let call = KubernetesCall::MergePatch {
                target: Target::cluster(Kind::NodeOverlay, name.clone()),
                status: true,
                patch: json!({ "status": status }),
            };
            self.calls.call(CallKey::PatchOverlayStatus(name), Call::Kubernetes(call), now);
        }
    }
}
