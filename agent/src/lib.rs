//! The shell of a node agent: it reads IMDS, the kernel's files, at need the kubelet, and the Kubernetes API, feeds the
//! pure [`drover_agent_core::Agent`], and does what that decides.
//!
//! Nothing here is process-wide, so that any number of agents can run in one process.

mod body;
mod clock;
mod cluster;
mod config;
mod disk;
mod eks;
mod imds;
mod keep;
mod kubeconfig;
mod leaders;
mod measure;
mod metrics;
mod permissions;
mod poll;
mod power;
mod process;
mod pulse;
mod question;
mod run;
mod systemd;
mod validate;

pub use config::{Args, Config, ConfigError, GpuChoice, IdentityChoice, SourceChoice};
pub use process::main_with;
pub use run::{RunError, run};
pub use validate::validate;
