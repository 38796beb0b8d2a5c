//! What an instance's metadata service says of its future.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The notices of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Notices {
    /// Spot interruption.
    pub spot: Option<SpotNotice>,
    /// When a rebalance was recommended first. It stays so until it is taken back by command.
    pub rebalance: Option<Timestamp>,
    /// Scheduled maintenance.
    pub maintenance: Vec<MaintenanceEvent>,
    /// What its Auto Scaling group is making of it; nothing outside of one.
    pub target_lifecycle_state: Option<TargetLifecycleState>,
}

/// A spot interruption: fixed once given, unlike some imitations that move it with every read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotNotice {
    /// What happens to the instance.
    pub action: SpotAction,
    /// When.
    pub time: Timestamp,
}

/// What EC2 does to a spot instance that it takes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpotAction {
    /// It ends.
    #[default]
    Terminate,
    /// It is stopped.
    Stop,
    /// Its memory is saved, and it is stopped.
    Hibernate,
}

/// What an Auto Scaling group is making of an instance, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Auto Scaling's names")]
pub enum TargetLifecycleState {
    InService,
    Terminated,
    Detached,
    Standby,
    #[serde(rename = "Warmed:Hibernated")]
    WarmedHibernated,
    #[serde(rename = "Warmed:Running")]
    WarmedRunning,
    #[serde(rename = "Warmed:Stopped")]
    WarmedStopped,
    #[serde(rename = "Warmed:Terminated")]
    WarmedTerminated,
}

impl TargetLifecycleState {
    /// As the metadata service writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetLifecycleState::InService => "InService",
            TargetLifecycleState::Terminated => "Terminated",
            TargetLifecycleState::Detached => "Detached",
            TargetLifecycleState::Standby => "Standby",
            TargetLifecycleState::WarmedHibernated => "Warmed:Hibernated",
            TargetLifecycleState::WarmedRunning => "Warmed:Running",
            TargetLifecycleState::WarmedStopped => "Warmed:Stopped",
            TargetLifecycleState::WarmedTerminated => "Warmed:Terminated",
        }
    }
}

/// One scheduled event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceEvent {
    /// `instance-event-…`.
    pub event_id: String,
    /// What is going to be done.
    pub code: MaintenanceCode,
    /// How far it is.
    pub state: MaintenanceState,
    /// For people.
    pub description: String,
    /// Start of the window.
    pub not_before: Timestamp,
    /// End of the window; a retirement has none.
    pub not_after: Option<Timestamp>,
}

/// The kinds of scheduled events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "EC2's names")]
pub enum MaintenanceCode {
    InstanceStop,
    InstanceRetirement,
    InstanceReboot,
    #[default]
    SystemReboot,
    SystemMaintenance,
}

impl MaintenanceCode {
    /// What EC2 says for people.
    pub fn description(self) -> &'static str {
        match self {
            MaintenanceCode::InstanceStop => "scheduled stop",
            MaintenanceCode::InstanceRetirement => "scheduled retirement",
            MaintenanceCode::InstanceReboot | MaintenanceCode::SystemReboot => "scheduled reboot",
            MaintenanceCode::SystemMaintenance => "scheduled maintenance",
        }
    }
}

/// How far a scheduled event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaintenanceState {
    /// It lies ahead or is under way.
    #[default]
    Active,
    /// It was done.
    Completed,
    /// It will not be done.
    Canceled,
}

impl MaintenanceEvent {
    /// The description as EC2 tells it: events that are over begin with a word that says so.
    pub fn told_description(&self) -> String {
        match self.state {
            MaintenanceState::Active => self.description.clone(),
            MaintenanceState::Completed => format!("[Completed] {}", self.description),
            MaintenanceState::Canceled => format!("[Canceled] {}", self.description),
        }
    }
}

/// Why a notice could not be given or taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// There is no such instance, or it is gone or stopped.
    #[error("instance {0}: there is no such live instance")]
    NoSuchInstance(String),
    /// Only spot instances are interrupted.
    #[error("instance {0}: it is on-demand, which EC2 does not reclaim")]
    NotSpot(String),
    /// Only a stopped instance is started.
    #[error("instance {0}: it is not stopped")]
    NotStopped(String),
    /// It has no such notice.
    #[error("instance {instance}: it has no {notice}")]
    NoSuchNotice {
        /// The instance.
        instance: String,
        /// What it does not have.
        notice: String,
    },
}
