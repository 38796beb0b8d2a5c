//! What agents and leaders say to each other: HTTP JSON, versioned.
//!
//! `POST /agent/v1/reports` carries a [`Report`] and returns a [`ReportAnswer`].
//! `GET /agent/v1/directives?node=N&instance=I&after=S` long-polls (up to 25 s) and returns
//! [`Directives`]. `POST /agent/v1/nonces?node=N` returns a [`NonceAnswer`]. Any replica takes all of
//! them; a follower proxies to the leader.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::id::{BootId, DisruptionId, InstanceId, NodeName};

/// What an agent needs that has no token of its own for the leaders: the answer to
/// `POST /agent/v1/nonces?node=N`. Whoever writes the nonce on that Node is let in with the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceAnswer {
    /// For the Node's annotation [`crate::labels::AGENT_NONCE`]. No secret.
    pub nonce: String,
    /// A bearer token for this node, known to the asking agent alone. It counts as long as the Node
    /// bears the nonce, for a day at most, and until another replica leads.
    pub token: String,
}

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
    /// When the cordon for them was seen to stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_at: Option<Timestamp>,
    /// Since when IMDS has told nothing of spot notices, by the agent's clock: it would know of none. `None` while it is
    /// heard, and from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imds_silent_since: Option<Timestamp>,
    /// Measured use; `None` means unknown, never idle.
    pub usage: Option<UsageDigest>,
    /// The report that the pods of `usage` are news since, one of this agent's that was answered: other
    /// pods are as they were by then. `None`: they are all that are measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_since: Option<u64>,
    /// UIDs of pods that were measured by then, and are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage_gone: Vec<String>,
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
    /// When it was issued, where its source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
}

impl Notice {
    /// Whether it is acted on by now. Scheduled maintenance may be weeks ahead, and be called off.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.kind != NoticeKind::Maintenance
            || self.deadline.is_none_or(|start| start.duration_since(now) <= MAINTENANCE_LEAD)
    }
}

/// A node is left so long before scheduled maintenance.
pub const MAINTENANCE_LEAD: SignedDuration = SignedDuration::from_mins(30);

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
    /// An Auto Scaling group will terminate the instance.
    AutoScaling,
    /// The operating system shuts down.
    Shutdown,
    /// The Node bears a condition that says it is broken: soft.
    Problem,
    /// The owner of an interruptible capacity reservation takes it back: as spot, and only the
    /// interruption queue tells of it.
    ReservationReclaim,
}

impl NoticeKind {
    /// Every kind, in order.
    pub const ALL: [NoticeKind; 9] = [
        NoticeKind::SpotTerminate,
        NoticeKind::SpotStop,
        NoticeKind::SpotHibernate,
        NoticeKind::Rebalance,
        NoticeKind::Maintenance,
        NoticeKind::AutoScaling,
        NoticeKind::Shutdown,
        NoticeKind::Problem,
        NoticeKind::ReservationReclaim,
    ];

    /// The name on the wire, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            NoticeKind::SpotTerminate => "spot-terminate",
            NoticeKind::SpotStop => "spot-stop",
            NoticeKind::SpotHibernate => "spot-hibernate",
            NoticeKind::Rebalance => "rebalance",
            NoticeKind::Maintenance => "maintenance",
            NoticeKind::AutoScaling => "auto-scaling",
            NoticeKind::Shutdown => "shutdown",
            NoticeKind::Problem => "problem",
            NoticeKind::ReservationReclaim => "reservation-reclaim",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether EC2 will take the instance away or stop it, so that a replacement is due. A mere
    /// shutdown may be a reboot; should the instance end, EC2 says so. Hibernation begins at once and
    /// brings the pods back.
    pub fn ends_instance(self) -> bool {
        match self {
            NoticeKind::SpotTerminate
            | NoticeKind::SpotStop
            | NoticeKind::Maintenance
            | NoticeKind::AutoScaling
            | NoticeKind::ReservationReclaim => true,
            NoticeKind::SpotHibernate
            | NoticeKind::Rebalance
            | NoticeKind::Shutdown
            | NoticeKind::Problem => false,
        }
    }

    /// Whether it permits a delete past a PodDisruptionBudget when time runs out.
    pub fn passes_budgets(self) -> bool {
        matches!(
            self,
            NoticeKind::SpotTerminate
                | NoticeKind::SpotStop
                | NoticeKind::SpotHibernate
                | NoticeKind::ReservationReclaim
        )
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
    /// Bytes received and sent a second by the machine's own interfaces; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bytes_per_second: Option<[u64; 2]>,
    /// Bytes read and written a second by its disks; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_second: Option<[u64; 2]>,
    /// Processes killed on the whole machine because memory ran out, as far as that is counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// GPUs; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUsage>,
    /// Who measured the pods.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub source: UsageSource,
    /// Pods measured.
    pub pods: Vec<PodUsage>,
}

/// Where measured use comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsageSource {
    /// The kernel's files, read by the agent.
    #[default]
    Kernel,
    /// The kubelet, asked by the agent. It tells means over some 15 s, which stand for peaks, too, and of pods
    /// neither pressure nor throttling nor kills.
    Kubelet,
}

/// Measured use of one pod over the last interval, and over days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsage {
    /// The pod's UID.
    pub uid: String,
    /// Mean CPU, milli-cores.
    pub cpu_milli_mean: u64,
    /// Highest one-second CPU, milli-cores.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_milli_max: u64,
    /// The most that its own CPU limit, or that of one of its containers, held it back: the share of the limit's
    /// periods in which it did, in thousandths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub throttled_permille: u32,
    /// Working set, bytes.
    pub memory_working_set: u64,
    /// Share of time some task stalled, in thousandths: CPU, memory, I/O. `None`: no PSI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure_permille: Option<[u32; 3]>,
    /// Highest share of one second in which some task stalled on CPU, in thousandths. `None`: no PSI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_permille_max: Option<u32>,
    /// Processes killed because memory ran out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// Bytes read from disks and written to them a second; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes_per_second: Option<[u64; 2]>,
    /// Bytes that it received and sent a second by all interfaces of its own but the loopback; `None` if
    /// unknown, and of a pod that shares its node's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bytes_per_second: Option<[u64; 2]>,
    /// The sum of its containers' 90th percentiles of CPU, milli-cores; `None` unless all are known. Of a
    /// pod that the kubelet measured its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli_p90: Option<u64>,
    /// The sum of its containers' memory peaks, bytes; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Its containers that were measured and whose names are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerUsage>,
    /// The GPUs that it has to itself; `None` if unknown, or if there are none. Few pods have any, and
    /// leaders keep the use of very many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Box<GpuUsage>>,
}

/// Measured use of one container over the last interval, and over days. Leaders keep very many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Its name within the pod.
    pub name: SmolStr,
    /// Mean CPU, milli-cores.
    pub cpu_milli_mean: u32,
    /// Share of its CPU limit's periods in which the limit held it back, in thousandths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub throttled_permille: u32,
    /// Working set, bytes.
    pub memory_working_set: u64,
    /// Processes killed in it because memory ran out, as far as it outlived them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u32,
    /// The 90th percentile of CPU over days, recent ones counting more, milli-cores; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli_p90: Option<u32>,
    /// The highest working set of the last eight days, or what OOM kills say was needed, bytes; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
}

/// Use of some GPUs, or of instances of partitioned ones, when they were last measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUsage {
    /// How many they are.
    pub count: u32,
    /// Share of time in which work ran, in thousandths, mean of all; `None` if unknown of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_permille: Option<u32>,
    /// Memory in use, bytes; `None` if unknown of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Memory that is free, bytes; `None` if unknown of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_free: Option<u64>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Pods among all that left that got less than their own grace because no more was left.
    #[serde(default)]
    pub clipped: u32,
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
    /// Whether the report that [`Report::usage_since`] names is not known here: the next is to name all
    /// pods.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub usage_unknown: bool,
    /// Whether this leader tells people nothing of what the report bears, so that it is the agent's part. Older
    /// leaders do not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: bool,
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
/// in the annotation [`crate::labels::DISRUPTION`], and stops when they go. What the drain may do to
/// budgets, and how urgent it is, the agent takes from the Node as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The disruption.
    pub disruption: DisruptionId,
    /// What the Node's [`crate::labels::DISRUPTION_DEADLINE`] says or is about to. It wakes a poll when it
    /// changes; what counts is the Node's.
    pub deadline: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_network_is_told_where_it_is_known() {
        let told = json!({"uid": "u", "cpu_milli_mean": 1, "memory_working_set": 2});
        let older: PodUsage = serde_json::from_value(told.clone()).unwrap();
        assert_eq!(older.network_bytes_per_second, None);
        assert_eq!(serde_json::to_value(&older).unwrap(), told, "nor told where it says nothing");
        let idle = PodUsage { network_bytes_per_second: Some([0, 0]), ..older };
        let read: PodUsage = serde_json::from_value(serde_json::to_value(&idle).unwrap()).unwrap();
        assert_eq!(read, idle, "nothing sent is not unknown");
    }

    #[test]
    fn what_only_newer_agents_tell_is_not_missed() {
        let told = json!({"version": 1, "node": "n", "instance": "i-1", "boot": "b", "sequence": 1,
            "sent_at": "2026-01-01T00:00:00Z", "notices": [], "usage": null, "drain": null});
        let report: Report = serde_json::from_value(told.clone()).unwrap();
        assert_eq!(report.imds_silent_since, None);
        assert_eq!(serde_json::to_value(&report).unwrap(), told, "nor told where it says nothing");
        let blind = Report { imds_silent_since: Some(report.sent_at), ..report };
        let read: Report = serde_json::from_value(serde_json::to_value(&blind).unwrap()).unwrap();
        assert_eq!(read, blind);
    }
}
