//! What an operator sets, typed.

use jiff::SignedDuration;

use crate::nodeclass::ClusterSettings;
use crate::planner::{PlannerSettings, RepackSettings};

/// The leader's settings. [`Settings::default`] has Karpenter's values where Karpenter has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The cluster's name (instances are tagged with it), and what its nodes must know of it.
    pub cluster: ClusterSettings,
    /// AWS region.
    pub region: String,
    /// A batch of pending pods ends when none came for this long …
    pub batch_idle: SignedDuration,
    /// … or this long after its first.
    pub batch_max: SignedDuration,
    /// The planner's.
    pub planner: PlannerSettings,
    /// Whether each plan is judged by the independent check before it is acted on.
    pub check_plans: bool,
    /// Repacking's.
    pub repack: RepackSettings,
    /// How often nodes that hold pods are looked at for consolidation; large clusters less often.
    pub disruption_poll: SignedDuration,
    /// `VM_MEMORY_OVERHEAD_PERCENT` in millionths.
    pub vm_memory_overhead_ppm: u32,
    /// `RESERVED_ENIS`.
    pub reserved_enis: u32,
    /// Whether capacity reservations are used (the feature gate `ReservedCapacity`).
    pub reserved_capacity: bool,
    /// How long an intent's request may be replayed; afterwards EC2 is only asked what there is.
    pub replay_for: SignedDuration,
    /// How long an offering that EC2 could not give is left alone.
    pub unavailable_for: SignedDuration,
    /// A claim made by hand that could not be launched for this long is given up.
    pub launch_liveness: SignedDuration,
    /// A claim whose Node has not joined after this long is given up.
    pub registration_liveness: SignedDuration,
    /// An agent that has said nothing for this long is silent: the leader drains in its place.
    pub agent_silence: SignedDuration,
    /// Nothing younger is collected as missing.
    pub absence_age: SignedDuration,
    /// Time between the two reads that prove an absence.
    pub absence_interval: SignedDuration,
    /// How often images, subnets and security groups are read.
    pub class_refresh: SignedDuration,
    /// How often instance types and prices are read.
    pub catalog_refresh: SignedDuration,
    /// How often all instances of the cluster are read.
    pub instance_refresh: SignedDuration,
    /// A launch template that no launch has named for this long is deleted; also how often they are
    /// read.
    pub template_patience: SignedDuration,
    /// How often the leader looks again at pods it found no place for.
    pub retry_unschedulable: SignedDuration,
    /// How long a node is watched under its taint before a voluntary drain begins, so that pods the
    /// scheduler bound just before are seen.
    pub taint_settles: SignedDuration,
    /// A node that pods were planned onto is left alone by voluntary disruption for this long.
    pub nominated_for: SignedDuration,
    /// A node that became ready less long ago is not left for a rebalance recommendation, and what was
    /// tried for one is not tried again for so long.
    pub rebalance_rest: SignedDuration,
    /// How often measured use is put into the log.
    pub usage_interval: SignedDuration,
    /// The name or URL of an SQS queue that EventBridge tells of instances; `None`: there is none.
    pub interruption_queue: Option<String>,
    /// Karpenter's lease; `None` where leader election is disabled.
    pub lease: Option<LeaseSettings>,
}

/// The lease that keeps two drivers from one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The holder: the leader group, not one replica of it.
    pub identity: String,
    /// How long it holds without being renewed.
    pub duration: SignedDuration,
    /// How often it is renewed.
    pub renew_every: SignedDuration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: "karpenter-leader-election".to_owned(),
            identity: "drover".to_owned(),
            duration: SignedDuration::from_secs(15),
            renew_every: SignedDuration::from_secs(5),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: ClusterSettings::default(),
            region: String::new(),
            batch_idle: SignedDuration::from_millis(100),
            batch_max: SignedDuration::from_secs(1),
            planner: PlannerSettings::default(),
            check_plans: false,
            repack: RepackSettings::default(),
            disruption_poll: SignedDuration::from_secs(10),
            vm_memory_overhead_ppm: 75_000,
            reserved_enis: 0,
            reserved_capacity: true,
            replay_for: SignedDuration::from_mins(15),
            unavailable_for: SignedDuration::from_mins(3),
            launch_liveness: SignedDuration::from_mins(5),
            registration_liveness: SignedDuration::from_mins(15),
            agent_silence: SignedDuration::from_secs(30),
            absence_age: SignedDuration::from_mins(5),
            absence_interval: SignedDuration::from_mins(1),
            class_refresh: SignedDuration::from_mins(1),
            catalog_refresh: SignedDuration::from_hours(12),
            instance_refresh: SignedDuration::from_secs(30),
            template_patience: SignedDuration::from_mins(5),
            retry_unschedulable: SignedDuration::from_secs(10),
            taint_settles: SignedDuration::from_secs(2),
            nominated_for: SignedDuration::from_secs(20),
            rebalance_rest: SignedDuration::from_mins(30),
            usage_interval: SignedDuration::from_secs(10),
            interruption_queue: None,
            lease: Some(LeaseSettings::default()),
        }
    }
}
