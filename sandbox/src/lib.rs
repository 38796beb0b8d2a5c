//! A simulated cloud and cluster for Drover: the Kubernetes API, EC2, SSM, Pricing and IMDS.
//!
//! [`world`] is pure and tickable: time is an argument, randomness is seeded, nothing does I/O. It
//! takes the same [`drover_common::call::Call`]s in process that the [`faces`] decode from HTTP, so
//! simulation and real clients test the same code. [`Sandbox`] runs a world in real time behind
//! loopback listeners.

pub mod authority;
pub mod duration;
pub mod faces;
pub mod host_tree;
pub mod sandbox;
pub mod shared;
pub mod world;

pub use authority::Authority;
pub use sandbox::{Endpoints, Options, Sandbox, StartError};
pub use shared::SharedWorld;
