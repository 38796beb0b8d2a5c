//! What agents and leaders say to each other: HTTP JSON, versioned.
//!
//! `POST /agent/v1/reports` carries a [`Report`] and returns a [`ReportAnswer`].
//! `GET /agent/v1/directives?node=N&instance=I&after=S` long-polls (up to 25 s) and returns
//! [`Directives`]. Any replica takes both; a follower proxies to the leader.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, DisruptionId, InstanceId, NodeName};

/// The version of this protocol. A leader answers 400 to another major version.
pub const PROTOCOL_VERSION: u32 = 1;

/// What an agent tells: at once when a notice or a drain changes, else every 10 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The Node's name.
    pub node: NodeName,
    /// The instance, from IMDS; `None` where IMDS does not answer.
    pub instance: Option<InstanceId>,
    /// The boot.
    pub boot: BootId,
    /// Counts up within one agent process.
    pub sequence: u64,
    /// When it was made, by the agent's clock.
    pub sent_at: Timestamp,
    /// Notices in force.
    pub notices: Vec<Notice>,
    /// Measured use; `None` means unknown, never idle.
    pub usage: Option<UsageDigest>,
    /// The drain under way or done, if any.
    pub drain: Option<DrainReport>,
}

/// A notice that an agent read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What will happen.
    pub kind: NoticeKind,
    /// For which instance.
    pub instance: InstanceId,
    /// In which boot it was read.
    pub boot: BootId,
    /// When it will happen, where that is told.
    pub deadline: Option<Timestamp>,
    /// When the agent read it first.
    pub detected_at: Timestamp,
}

/// The kinds of notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// Spot, action `terminate`.
    SpotTerminate,
    /// Spot, action `stop`.
    SpotStop,
    /// Spot, action `hibernate`: no lead time.
    SpotHibernate,
    /// A rebalance recommendation: soft.
    Rebalance,
    /// Scheduled maintenance.
    Maintenance,
}

impl NoticeKind {
    /// Whether it permits a delete past a PodDisruptionBudget when time runs out.
    pub fn passes_budgets(self) -> bool {
        matches!(self, NoticeKind::SpotTerminate | NoticeKind::SpotStop | NoticeKind::SpotHibernate)
    }
}

/// Measured use of a node over the last interval, as averages and peaks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageDigest {
    /// Seconds covered.
    pub interval_seconds: u32,
    /// Mean CPU, milli-cores.
    pub cpu_milli_mean: u64,
    /// Highest one-second CPU, milli-cores.
    pub cpu_milli_max: u64,
    /// Working set at the end, bytes.
    pub memory_working_set: u64,
    /// Share of time some task stalled, in thousandths: CPU, memory, I/O. `None`: no PSI.
    pub pressure_permille: Option<[u32; 3]>,
    /// Pods measured.
    pub pods: Vec<PodUsage>,
}

/// Measured use of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsage {
    /// The pod's UID.
    pub uid: String,
    /// Mean CPU, milli-cores.
    pub cpu_milli_mean: u64,
    /// Working set, bytes.
    pub memory_working_set: u64,
}

/// How a drain goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// The disruption it serves; `None` for an interruption the agent acts on by itself.
    pub disruption: Option<DisruptionId>,
    /// Where it stands.
    pub phase: DrainPhase,
    /// Pods evicted so far.
    pub evicted: u32,
    /// Pods deleted past a budget.
    pub forced: u32,
    /// Pods still there: `namespace/name` and why.
    pub remaining: Vec<(String, String)>,
}

/// The phases of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainPhase {
    /// Pods are leaving.
    Draining,
    /// Nothing that should leave is left.
    Drained,
}

/// The leader's answer to a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// Whether the notices are committed to the log.
    pub committed: bool,
    /// What the node should do now.
    pub directives: Vec<Directive>,
}

/// The answer to a long poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directives {
    /// Pass this as `after` next time.
    pub sequence: u64,
    /// What the node should do now; complete, not a difference.
    pub directives: Vec<Directive>,
}

/// A wake-up: the agent acts only if its Node, read fresh, carries the disrupted taint and this id
/// in the annotation [`crate::labels::DISRUPTION`], and stops when they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The disruption.
    pub disruption: DisruptionId,
    /// When budgets may be passed (an elapsed terminationGracePeriod); never, if `None`.
    pub deadline: Option<Timestamp>,
}
