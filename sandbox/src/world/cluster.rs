//! The cluster's own actors: scheduler, workload controllers, garbage collection, kubelets.

use jiff::Timestamp;

use super::WorldOptions;
use super::cloud::Cloud;
use super::random::Random;
use super::store::Store;

/// Scheduler, workload controllers, owner and namespace garbage collection, kubelets.
#[derive(Debug)]
pub struct ClusterControllers {}

impl ClusterControllers {
    /// Controllers of an empty cluster.
    pub fn new(_options: &WorldOptions, _random: Random, _now: Timestamp) -> Self {
        Self {}
    }

    /// Lets everything happen that is due at `now`.
    pub fn tick(&mut self, _store: &mut Store, _cloud: &mut Cloud, _now: Timestamp) {}

    /// The earliest time at which something is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        None
    }
}
