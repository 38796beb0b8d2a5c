//! The HTTP faces of a world: each decodes a protocol into the world's own verbs.
//!
//! A face is an axum router over a [`crate::SharedWorld`]; it holds no state of its own.

pub mod disturb;
pub mod kubernetes;
