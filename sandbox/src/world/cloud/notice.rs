//! What an instance's metadata service says of its future.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The notices of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Notices {
    /// Spot interruption.
    pub spot: Option<SpotNotice>,
    /// When a rebalance was recommended. It stays set, as on EC2.
    pub rebalance: Option<Timestamp>,
    /// Scheduled maintenance.
    pub maintenance: Vec<MaintenanceEvent>,
}

/// A spot interruption: fixed once given, unlike some imitations that move it with every read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpotNotice {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When.
    pub time: Timestamp,
}

/// One scheduled event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceEvent {
    /// `instance-event-…`.
    pub event_id: String,
    /// `system-reboot`, `instance-retirement`, `instance-stop`, …
    pub code: String,
    /// `active`, `completed` or `canceled`.
    pub state: String,
    /// For people.
    pub description: String,
    /// Start of the window.
    pub not_before: Timestamp,
    /// End of the window.
    pub not_after: Timestamp,
}

/// Why a notice could not be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// There is no such instance, or it is gone.
    #[error("instance {0}: there is no such live instance")]
    NoSuchInstance(String),
    /// Only spot instances are interrupted.
    #[error("instance {0}: it is on-demand, which EC2 does not reclaim")]
    NotSpot(String),
}
