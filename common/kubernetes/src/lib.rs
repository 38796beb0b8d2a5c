//! The one crate that turns [`KubernetesCall`]s into requests and watches into slim objects, and asks kubelets.
//!
//! It decides nothing: a call is executed once, its answer is classified, and what to do next is
//! the business of the pure crates. `kube`'s own retries are off for that reason.
//!
//! [`KubernetesCall`]: drover_common::call::KubernetesCall

mod client;
mod eks;
mod execute;
mod jitter;
mod kubelet;
mod limits;
mod path;
mod review;
mod sources;
mod watch;

pub use client::{ConnectError, connect, connect_as, install_crypto_provider};
pub use eks::{EksCluster, EksIdentity, SignEksToken, TokenFuture, is_of_eks};
pub use execute::execute;
/// An address.
pub use http::Uri;
pub use jitter::part_of;
/// A handle to one API server; cheap to clone.
pub use kube::Client;
pub use kubelet::{KubeletError, KubeletTrust, connect_kubelet, read_kubelet};
pub use limits::Limits;
pub use review::{Identity, ReviewError, review_access, review_own_access, review_token};
pub use sources::Sources;
pub use watch::{watch, watch_by};
