//! Resource vectors as dense integers: every resource name of one plan has an index.

use std::collections::BTreeMap;

use drover_common::resources::{ResourceName, Resources};

/// Amounts by dimension.
pub(super) type Amounts = Vec<i64>;

/// Index of cpu in every vector.
pub(super) const CPU: usize = 0;
/// Index of memory in every vector.
pub(super) const MEMORY: usize = 1;
/// Index of the number of pods in every vector.
const PODS: usize = 2;

/// Resource names that some pod of a plan asks for. What nobody asks for is left out.
#[derive(Clone, Debug)]
pub(super) struct Dimensions {
    names: Vec<ResourceName>,
    index: BTreeMap<ResourceName, usize>,
}

impl Dimensions {
    pub(super) fn new() -> Self {
        let mut dimensions = Self { names: Vec::new(), index: BTreeMap::new() };
        dimensions.learn(&ResourceName::Cpu);
        dimensions.learn(&ResourceName::Memory);
        dimensions.learn(&ResourceName::Pods);
        dimensions
    }

    pub(super) fn learn(&mut self, name: &ResourceName) {
        if !self.index.contains_key(name) {
            self.index.insert(name.clone(), self.names.len());
            self.names.push(name.clone());
        }
    }

    pub(super) fn learn_all(&mut self, resources: &Resources) {
        for (name, _) in resources.iter() {
            self.learn(name);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> &[ResourceName] {
        &self.names
    }

    pub(super) fn dense(&self, resources: &Resources) -> Amounts {
        let mut amounts = vec![0; self.names.len()];
        for (name, amount) in resources.iter() {
            let dimension = match name {
                ResourceName::Cpu => Some(CPU),
                ResourceName::Memory => Some(MEMORY),
                ResourceName::Pods => Some(PODS),
                other => self.index.get(other).copied(),
            };
            if let Some(own) = dimension.and_then(|dimension| amounts.get_mut(dimension)) {
                *own = amount;
            }
        }
        amounts
    }

    pub(super) fn sparse(&self, amounts: &[i64]) -> Resources {
        self.names
            .iter()
            .zip(amounts)
            .filter(|(_, amount)| **amount != 0)
            .map(|(name, amount)| (name.clone(), *amount))
            .collect()
    }
}

/// Whether `used + request` stays within `room`. What is not requested can't be exceeded: a node
/// that is overfull in one resource still takes pods that ask for none of it.
pub(super) fn fits(request: &[i64], used: &[i64], room: &[i64]) -> bool {
    request
        .iter()
        .zip(used)
        .zip(room)
        .all(|((request, used), room)| *request <= 0 || used.saturating_add(*request) <= *room)
}

/// How many times `request` fits between `used` and `room`.
pub(super) fn times(request: &[i64], used: &[i64], room: &[i64]) -> u32 {
    let mut most = i64::from(u32::MAX);
    for ((request, used), room) in request.iter().zip(used).zip(room) {
        if *request > 0 {
            most = most.min(room.saturating_sub(*used).max(0) / *request);
        }
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Adds `request` `count` times.
pub(super) fn add_times(used: &mut [i64], request: &[i64], count: u32) {
    for (used, request) in used.iter_mut().zip(request) {
        *used = used.saturating_add(request.saturating_mul(i64::from(count)));
    }
}
