//! The cluster's own actors: scheduler, workload controllers, garbage collection, kubelets.
//!
//! Every actor is level-triggered: a change or a due time puts an object's place into the
//! `Index`'s work, and its actor looks at the whole of it again. An idle world costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::InstanceId;
use jiff::{SignedDuration, Timestamp};

use super::WorldOptions;
use super::cloud::Cloud;
use super::failure::ApiResult;
use super::random::Random;
use super::resource::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, Resource, STATEFUL_SETS, VOLUME_ATTACHMENTS,
};
use super::store::Store;

mod attachment;
mod budget;
mod container;
mod daemon_set;
mod deployment;
mod ends;
mod index;
mod job;
mod kubelet;
mod namespace;
mod node;
mod owner;
mod replica_set;
mod scheduler;
mod stateful_set;
mod stats;
mod taint_eviction;
mod template;
#[cfg(test)]
mod tests;
mod usage;
mod user_data;
mod volume;

pub use container::ContainerUse;
pub use ends::{EndKind, PodEnd};
pub use stats::{Counter, KubeletStats};
pub use usage::{MachineUse, PodUse};

use ends::Ends;
use index::Index;
use kubelet::PodLife;
use node::Machine;

/// Where an object is: resource, namespace and name.
type Place = (Resource, ObjectKey);

/// Rounds of reactions to reactions in one tick; what is left waits for the next.
const MOST_ROUNDS: usize = 32;

/// Scheduler, workload controllers, owner and namespace garbage collection, kubelets.
#[derive(Debug)]
pub struct ClusterControllers {
    options: WorldOptions,
    random: Random,
    index: Index,
    /// When which object is to be looked at again.
    timers: BTreeSet<(Timestamp, Resource, ObjectKey)>,
    lives: BTreeMap<ObjectKey, PodLife>,
    ends: Ends,
    /// Attached volumes that nothing uses, and since when.
    unmounting: BTreeMap<ObjectKey, Timestamp>,
    machines: BTreeMap<InstanceId, Machine>,
    addresses: u32,
    stats: BTreeMap<InstanceId, KubeletStats>,
    /// When the last tick left something undone.
    unfinished: Option<Timestamp>,
}

impl ClusterControllers {
    /// Controllers of an empty cluster.
    pub fn new(options: &WorldOptions, random: Random, _now: Timestamp) -> Self {
        Self {
            options: options.clone(),
            random,
            index: Index::default(),
            timers: BTreeSet::new(),
            lives: BTreeMap::new(),
            ends: Ends::default(),
            unmounting: BTreeMap::new(),
            machines: BTreeMap::new(),
            addresses: 0,
            stats: BTreeMap::new(),
            unfinished: None,
        }
    }

    /// Lets everything happen that is due at `now`.
    pub fn tick(&mut self, store: &mut Store, cloud: &mut Cloud, now: Timestamp) {
        while let Some((due, resource, key)) = self.timers.pop_first() {
            if due > now {
                self.timers.insert((due, resource, key));
                break;
            }
            self.index.work.insert((resource, key));
        }
        let mut turn = Turn {
            store,
            cloud,
            index: &mut self.index,
            timers: &mut self.timers,
            lives: &mut self.lives,
            ends: &mut self.ends,
            unmounting: &mut self.unmounting,
            machines: &mut self.machines,
            addresses: &mut self.addresses,
            random: &mut self.random,
            options: &self.options,
            now,
        };
        for _ in 0..MOST_ROUNDS {
            node::run_machines(&mut turn);
            turn.index.absorb(turn.store);
            turn.work();
            turn.index.absorb(turn.store);
            if scheduler::run(&mut turn) == scheduler::Progress::More {
                break;
            }
            if turn.index.is_idle() {
                break;
            }
        }
        self.unfinished = (!self.index.is_idle()).then_some(now);
    }

    /// How the pods ended that ran, oldest first, of the last 20,000.
    pub fn ends(&self) -> impl Iterator<Item = &PodEnd> {
        self.ends.iter()
    }

    /// The earliest time at which something is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(due, _, _)| *due);
        [self.unfinished, timer].into_iter().flatten().min()
    }
}

/// One tick: the world as its actors see and change it.
pub(crate) struct Turn<'a> {
    store: &'a mut Store,
    cloud: &'a mut Cloud,
    index: &'a mut Index,
    timers: &'a mut BTreeSet<(Timestamp, Resource, ObjectKey)>,
    lives: &'a mut BTreeMap<ObjectKey, PodLife>,
    ends: &'a mut Ends,
    unmounting: &'a mut BTreeMap<ObjectKey, Timestamp>,
    machines: &'a mut BTreeMap<InstanceId, Machine>,
    addresses: &'a mut u32,
    random: &'a mut Random,
    options: &'a WorldOptions,
    now: Timestamp,
}

impl Turn<'_> {
    /// Gives every object that changed or is due to its actors.
    fn work(&mut self) {
        for (resource, key) in std::mem::take(&mut self.index.orphans) {
            owner::collect(self, &resource, &key);
        }
        for (resource, key) in std::mem::take(&mut self.index.work) {
            owner::finalize(self, &resource, &key);
            match &resource {
                r if *r == PODS => {
                    taint_eviction::sync(self, &key);
                    attachment::follow_pod(self, &key);
                    kubelet::sync(self, &key);
                }
                r if *r == NODES => {
                    attachment::follow_node(self, &key.name);
                    node::sync(self, &key);
                }
                r if *r == VOLUME_ATTACHMENTS => attachment::sync(self, &key),
                r if *r == DEPLOYMENTS => deployment::sync(self, &key),
                r if *r == REPLICA_SETS => replica_set::sync(self, &key),
                r if *r == STATEFUL_SETS => stateful_set::sync(self, &key),
                r if *r == DAEMON_SETS => daemon_set::sync(self, &key),
                r if *r == JOBS => job::sync(self, &key),
                r if *r == POD_DISRUPTION_BUDGETS => budget::sync(self, &key),
                r if *r == PERSISTENT_VOLUME_CLAIMS => volume::sync(self, &key),
                r if *r == NAMESPACES => namespace::sync(self, &key),
                _ => {}
            }
        }
    }

    /// Has an object looked at again at a time.
    fn at(&mut self, due: Timestamp, resource: &Resource, key: &ObjectKey) {
        self.timers.insert((due, resource.clone(), key.clone()));
    }

    /// A write's result; a refused one is tried again in a second.
    fn written<T>(
        &mut self,
        result: ApiResult<T>,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                tracing::debug!(%resource, %key, %failure, "A controller's write was refused.");
                self.at(after(self.now, SignedDuration::from_secs(1)), resource, key);
                None
            }
        }
    }
}

/// The boot id that a machine's kernel shows, and its Node object, in its so-manieth boot.
pub(crate) fn boot_id(instance: &InstanceId, boots: u32) -> String {
    let mut seed = 0xcbf2_9ce4_8422_2325_u64;
    for byte in instance.as_str().bytes() {
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Random::new(seed.wrapping_add(u64::from(boots.saturating_sub(1)))).uuid()
}

/// A time some while after another; the end of time where there is no such.
fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}
