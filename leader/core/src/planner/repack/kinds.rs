//! The kinds of pods that may be moved: one group of the board each.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::NodeName;
use drover_common::resources::Resources;

use super::candidate::Judged;
use super::{LeftAlone, LeftKind, RepackInput};
use crate::planner::attach::AttachLimits;
use crate::planner::board::Board;
use crate::planner::group::PendingGroup;
use crate::planner::rules::{Alternatives, NAMES_A_NODE, name_only, variants};
use crate::planner::selectors::Preferences;
use crate::planner::volume::VolumeRules;
use crate::view::ShapeId;

/// The kinds of pods with volumes, by shape, by where those are, and by what attaches them.
type ByVolumes = BTreeMap<(ShapeId, Vec<Alternatives>, Resources), usize>;

/// What pods with volumes are looked up in.
struct Volumes<'v> {
    rules: VolumeRules<'v>,
    limits: &'v AttachLimits,
    kinds: ByVolumes,
}

/// The kinds of movable pods: one group each, found by the first of its pods.
#[derive(Default)]
pub(super) struct Kinds {
    pub groups: Vec<PendingGroup>,
    /// The kind of each pod with volumes, the kind of each shape for the others.
    by_pod: BTreeMap<ObjectKey, usize>,
    by_shape: BTreeMap<ShapeId, usize>,
    firsts: Vec<ObjectKey>,
    group_of: Vec<usize>,
    preferences: Preferences,
    pub unmovable: BTreeSet<NodeName>,
}

impl Kinds {
    pub(super) fn of(
        input: &RepackInput<'_>,
        judged: &Judged<'_>,
        limits: &AttachLimits,
    ) -> (Self, Vec<LeftAlone>) {
        let mut kinds = Self::default();
        let mut refused = Vec::new();
        let rules = VolumeRules::of(input.plan.view);
        let mut volumes = Volumes { rules, limits, kinds: ByVolumes::new() };
        for (node, contents) in judged.occupied() {
            for (key, shape) in &contents.pods {
                if let Err(reason) = kinds.learn(input, node, key, *shape, &mut volumes) {
                    let reason = format!("Pod {key} can't move: {reason}");
                    refused.push(LeftAlone { node: node.clone(), reason, kind: LeftKind::Blocked });
                    kinds.unmovable.insert(node.clone());
                    break;
                }
            }
        }
        (kinds, refused)
    }

    fn learn(
        &mut self,
        input: &RepackInput<'_>,
        node: &NodeName,
        key: &ObjectKey,
        number: ShapeId,
        known: &mut Volumes<'_>,
    ) -> Result<(), String> {
        if self.by_shape.contains_key(&number) {
            return Ok(());
        }
        let view = input.plan.view;
        let Some(shape) = view.shape(number) else { return Ok(()) };
        let volumes = known.rules.of_pod(key, shape)?;
        if let Some(reason) = known.rules.tie(key, shape, node) {
            return Err(reason);
        }
        let attached = known.limits.requests(view, key, shape);
        let wanted = (number, volumes.clone(), attached.clone());
        let kind = match known.kinds.get(&wanted).copied() {
            Some(kind) => kind,
            None => {
                let policy = input.plan.settings.preference_policy;
                let most = self.preferences.of(shape, 1);
                let steps = variants(shape, &volumes, policy, false, most)?;
                let required = steps.last().map(|step| &step.rules.any);
                if required.is_some_and(|any| any.iter().any(|terms| name_only(terms, node))) {
                    return Err(NAMES_A_NODE.to_owned());
                }
                let mut requests = shape.requests.clone();
                requests.add(&attached);
                self.groups.push(PendingGroup {
                    shape: shape.clone(),
                    requests,
                    variants: steps,
                    pods: vec![key.clone()],
                });
                self.firsts.push(key.clone());
                known.kinds.insert(wanted, self.firsts.len() - 1);
                self.firsts.len() - 1
            }
        };
        if shape.volumes.is_empty() {
            self.by_shape.insert(number, kind);
        } else {
            self.by_pod.insert(key.clone(), kind);
        }
        Ok(())
    }

    /// Finds the group that each kind became, and takes its first pod, which does not wait, out.
    pub(super) fn find_groups(&mut self, board: &mut Board<'_>) {
        let mut owners: BTreeMap<ObjectKey, usize> = BTreeMap::new();
        let firsts: BTreeSet<&ObjectKey> = self.firsts.iter().collect();
        for (number, group) in board.groups.iter_mut().enumerate() {
            group.pods.retain(|pod| {
                let first = firsts.contains(pod);
                if first {
                    owners.insert(pod.clone(), number);
                }
                !first
            });
        }
        self.group_of = self
            .firsts
            .iter()
            .map(|first| owners.get(first).copied().unwrap_or(usize::MAX))
            .collect();
    }

    pub(super) fn group(&self, key: &ObjectKey, shape: ShapeId) -> Option<usize> {
        let kind = self.by_shape.get(&shape).or_else(|| self.by_pod.get(key))?;
        self.group_of.get(*kind).copied().filter(|group| *group != usize::MAX)
    }
}
