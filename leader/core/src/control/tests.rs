//! Scenarios: the brain in a small world, on virtual time.

mod doubt;
mod launching;
mod leaving;
mod rig;
mod world;
