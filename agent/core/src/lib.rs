//! What a node agent decides: which notices are in force, when to cordon and drain its own node,
//! and what its measurements amount to.
//!
//! Pure: [`Agent::step`] takes one [`Input`] and the time and returns [`Effect`]s. The shell
//! (`drover-agent`) talks to IMDS, the Kubernetes API, the leaders and the disk.

mod agent;
mod digest;
pub mod eks;
pub mod imds;
mod moment;
mod node;
mod notice;
pub mod permission;
mod retry;
mod sign;
pub mod usage;

pub use agent::{Agent, CallKey, Effect, Fact, Identity, Input, Metrics, Saved};
pub use moment::Moment;
pub use node::kubelet_address;
pub use notice::{Answer, NoticePath};
