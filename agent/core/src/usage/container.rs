//! Containers of pods: their names, and what they use between two readings.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{ContainerId, ContainerStatus, PodStatus};
use drover_common::protocol::ContainerUsage;
use jiff::Timestamp;
use smol_str::SmolStr;

use super::{LimitPeriods, microseconds, milli_cores};

/// The containers of this node's running pods, by the pod's UID.
pub type ContainerNames = BTreeMap<Arc<str>, Vec<ContainerName>>;

/// A container as its pod's status names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName {
    /// Its name, which outlives restarts.
    pub name: SmolStr,
    /// That of the one that runs, or ran last; `None` if unknown.
    pub id: Option<ContainerId>,
    /// Whether the pod needs it for as long as it runs. Init containers end, except for sidecars.
    pub lasts: bool,
}

/// What was read of one container. Counters begin anew with another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSample {
    /// Its name.
    pub name: SmolStr,
    /// Which of those that bore the name it is.
    pub id: ContainerId,
    /// CPU time, microseconds.
    pub cpu_usec: u64,
    /// What came of its CPU limit.
    pub limit: LimitPeriods,
    /// Working set, bytes.
    pub memory_working_set: u64,
    /// Processes killed because memory ran out.
    pub oom_kills: u64,
}

/// The names in a pod's status.
pub(crate) fn names_in(status: &PodStatus) -> Vec<ContainerName> {
    let name = |one: &ContainerStatus, lasts| ContainerName {
        name: one.name.as_str().into(),
        id: one.container_id,
        lasts,
    };
    let lasting = status.container_statuses.iter().map(|one| name(one, true));
    let init = status.init_container_statuses.iter().map(|one| name(one, false));
    lasting.chain(init).collect()
}

/// A pod's containers as they were read last, and the time before.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerFold {
    before: Option<(Timestamp, Vec<ContainerSample>)>,
    last: Option<(Timestamp, Vec<ContainerSample>)>,
}

impl ContainerFold {
    pub(super) fn add(&mut self, at: Timestamp, samples: Vec<ContainerSample>) {
        self.before = self.last.replace((at, samples));
    }

    /// The use of those that ran all the time: of one that began in between it isn't known yet.
    pub(super) fn usage(&self) -> Vec<ContainerUsage> {
        let (Some((from, before)), Some((until, last))) = (&self.before, &self.last) else {
            return Vec::new();
        };
        let usec = microseconds(*from, *until);
        if usec == 0 {
            return Vec::new();
        }
        let usage = last.iter().filter_map(|now| {
            let before = before.iter().find(|one| one.id == now.id && one.name == now.name)?;
            let kills = now.oom_kills.saturating_sub(before.oom_kills);
            Some(ContainerUsage {
                name: now.name.clone(),
                cpu_milli_mean: small(milli_cores(before.cpu_usec, now.cpu_usec, usec)),
                throttled_permille: now.limit.permille_since(before.limit),
                memory_working_set: now.memory_working_set,
                oom_kills: small(kills),
                cpu_milli_p90: None,
                memory_peak: None,
            })
        });
        usage.collect()
    }
}

pub(super) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
