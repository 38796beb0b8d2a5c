//! Scenarios: the brain in a small world, on virtual time.

mod consolidating;
mod doubt;
mod launching;
mod leaving;
mod rig;
mod world;
