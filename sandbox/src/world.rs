//! The simulated world: a store of Kubernetes objects, the controllers that act on it, and a cloud.
//!
//! Pure: no clock, no I/O, no threads. [`World::tick`] is told what time it is, and the only
//! randomness is [`random::Random`], seeded through [`WorldOptions::seed`].

use drover_common::call::{Call, KubernetesCall, KubernetesFailure, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub mod access;
pub mod api;
pub mod cloud;
pub mod cluster;
pub mod failure;
pub mod faults;
pub mod object;
pub mod random;
pub mod resource;
pub mod store;

use access::Tokens;
use cloud::Cloud;
use cluster::ClusterControllers;
use failure::ApiFailure;
use faults::Faults;
use random::Random;
use store::{Change, Store};

/// What a world is made from.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Seed of everything random: the same seed and the same calls at the same times give the
    /// same world.
    pub seed: u64,
    /// How many times faster simulated delays pass; 1.0 is real time. Only delays are scaled,
    /// never timestamps.
    pub speed: f64,
    /// Time from an instance's launch to its kubelet's registration, before [`Self::speed`].
    pub boot_delay: SignedDuration,
    /// The cluster's name, as tags and user data carry it.
    pub cluster_name: String,
    /// The AWS region.
    pub region: String,
    /// How many changes the watch log keeps; an older watch gets 410.
    pub log_length: usize,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            speed: 1.0,
            boot_delay: SignedDuration::from_secs(20),
            cluster_name: "sandbox".to_owned(),
            region: "us-east-1".to_owned(),
            log_length: 50_000,
        }
    }
}

impl WorldOptions {
    /// A simulated delay, shortened by [`Self::speed`].
    pub fn scaled(&self, delay: SignedDuration) -> SignedDuration {
        if !self.speed.is_finite() || self.speed <= 0.0 {
            return delay;
        }
        SignedDuration::try_from_secs_f64(delay.as_secs_f64() / self.speed).unwrap_or(delay)
    }
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// What it was made from.
    pub options: WorldOptions,
    /// The Kubernetes objects.
    pub store: Store,
    /// Instances, capacity, prices.
    pub cloud: Cloud,
    /// Scheduler, workload controllers, kubelets.
    pub cluster: ClusterControllers,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Service accounts' tokens.
    pub tokens: Tokens,
    ticked_revision: u64,
}

impl World {
    /// A world with an empty cluster: the system namespaces, priority classes and Karpenter's CRDs.
    pub fn new(options: WorldOptions, now: Timestamp) -> Self {
        let mut seeds = Random::new(options.seed);
        let mut store = Store::new(seeds.fork(), options.log_length);
        api::bootstrap::install(&mut store, now);
        let cloud = Cloud::new(&options, seeds.fork(), now);
        let cluster = ClusterControllers::new(&options, seeds.fork(), now);
        let faults = Faults::new(seeds.fork());
        let tokens = Tokens::new(seeds.fork());
        Self { options, store, cloud, cluster, faults, tokens, ticked_revision: 0 }
    }

    /// Lets everything happen that is due at `now`.
    pub fn tick(&mut self, now: Timestamp) {
        self.ticked_revision = self.store.revision();
        self.cloud.tick(now);
        self.cluster.tick(&mut self.store, &mut self.cloud, now);
    }

    /// Whether [`Self::tick`] would do something: the store changed since, or a delay has passed.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.store.revision() != self.ticked_revision
            || self.next_due().is_some_and(|due| due <= now)
    }

    /// The earliest time at which something is due by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        [self.cloud.next_due(), self.cluster.next_due()].into_iter().flatten().min()
    }

    /// Answers a call as the faces would.
    pub fn apply(&mut self, call: &Call, now: Timestamp) -> Outcome {
        match call {
            Call::Kubernetes(call) => Outcome::Kubernetes(self.apply_kubernetes(call, now)),
            Call::Ec2(call) => Outcome::Ec2(self.cloud.apply(call, now)),
        }
    }

    fn apply_kubernetes(
        &mut self,
        call: &KubernetesCall,
        now: Timestamp,
    ) -> Result<Value, KubernetesFailure> {
        if !matches!(call, KubernetesCall::Evict { .. }) {
            let done = api::perform(&mut self.store, call, now);
            return done.map_err(|failure| failure.to_kubernetes_failure());
        }
        let refusal = self.faults.refuse_eviction();
        let done = refusal.map_or_else(|| api::perform(&mut self.store, call, now), Err);
        done.map_err(|failure| failure.to_eviction_failure())
    }

    /// The changes after `revision`, oldest first.
    ///
    /// # Errors
    /// 410 Expired when the log no longer reaches back that far.
    pub fn events_since(
        &self,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Change>, Box<ApiFailure>> {
        self.store.changes_since(revision)
    }
}
