//! What NodePools hold of their limits.

use std::collections::BTreeMap;

use drover_common::crd::parse_resources;
use drover_common::id::{NodeClaimName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use drover_common::resources::{ResourceName, Resources};

use super::{Control, object};
use crate::planner::Overlays;
use crate::state::{ClaimRecord, Stage, State};

impl Control {
    /// What each pool holds at worst: nodes as they are, launches as the largest they may become.
    pub(super) fn pool_usage(&self, state: &State) -> BTreeMap<NodePoolName, Resources> {
        let mut overlays = Overlays::of(&self.view);
        let mut usage: BTreeMap<NodePoolName, Resources> = BTreeMap::new();
        for (name, record) in &state.claims {
            let Some(pool) = record.nodepool.clone().filter(|_| record.stage < Stage::Gone) else {
                continue;
            };
            let node = self.node_of(record).map(|node| node.status.capacity.clone());
            let told = node.unwrap_or_default();
            let mut capacity = if told.is_empty() || record.stage < Stage::Initialized {
                // What device plugins have is not told by a node until they run.
                let mut expected = self.expected_capacity(state, &mut overlays, name, record);
                for (name, amount) in told.iter().filter(|(_, amount)| *amount > 0) {
                    expected.set(name.clone(), amount);
                }
                expected
            } else {
                told
            };
            capacity.set(ResourceName::from("nodes"), 1);
            usage.entry(pool).or_default().add(&capacity);
        }
        usage
    }

    /// What a node will have, or the largest that it may come to have.
    fn expected_capacity(
        &self,
        state: &State,
        overlays: &mut Overlays,
        name: &NodeClaimName,
        record: &ClaimRecord,
    ) -> Resources {
        let mut of =
            |kind, zone, billing| self.overlaid_capacity(overlays, record, kind, zone, billing);
        if let Some(instance) = &record.instance {
            let billing = instance.capacity_type;
            return of(&instance.instance_type, &instance.zone, billing).unwrap_or_else(|| {
                let claim = self.view.claims().get(name);
                let told = claim.map(|claim| parse_resources(&object::status_of(claim).capacity));
                told.and_then(Result::ok).unwrap_or_default()
            });
        }
        let intent = record.intent.as_ref().and_then(|intent| state.intents.get(intent));
        let overrides = intent.map(|intent| &intent.request);
        overrides
            .into_iter()
            .flat_map(|request| request.overrides.iter().map(|o| (o, request.capacity_type)))
            .filter_map(|(o, billing)| of(&o.instance_type, &o.zone, billing))
            .fold(Resources::default(), |most, capacity| most.maximum(&capacity))
    }

    /// What a type has, with what NodeOverlays add to such a node of this claim.
    fn overlaid_capacity(
        &self,
        overlays: &mut Overlays,
        record: &ClaimRecord,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
    ) -> Option<Resources> {
        let kind = self.discovery.instance_type(&record.nodeclass, instance_type)?;
        let mut capacity = kind.capacity.clone();
        let planned = record.planned.as_ref().map(|planned| &planned.labels);
        capacity.add(&overlays.capacity(&|key| {
            match key {
                labels::INSTANCE_TYPE => Some(instance_type),
                labels::ZONE => Some(zone),
                labels::ZONE_ID => {
                    kind.offerings.iter().find(|o| o.zone == zone)?.zone_id.as_deref()
                }
                labels::CAPACITY_TYPE => Some(capacity_type.as_str()),
                labels::NODEPOOL => record.nodepool.as_ref().map(NodePoolName::as_str),
                _ => kind
                    .labels
                    .get(key)
                    .or_else(|| planned.and_then(|labels| labels.get(key)))
                    .map(String::as_str),
            }
        }));
        Some(capacity)
    }
}
