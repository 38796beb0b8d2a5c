//! The planner against the repository's own catalogue: scenarios as text, and random clusters
//! against the check.

mod world;

mod constraints;
mod examples;
mod random;
mod repack;
