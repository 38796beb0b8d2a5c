//! The HTTP faces of a world: each decodes a protocol into the world's own verbs.
//!
//! A face is an axum router over a [`crate::SharedWorld`]; it holds no state of its own.

pub mod admin;
mod aws_json;
pub mod disturb;
pub mod ec2;
pub mod imds;
pub mod kubelet;
pub mod kubernetes;
mod page;
pub mod pricing;
pub mod sqs;
pub mod ssm;
