//! Whole-system tests of Drover: deterministic simulation here, scenarios against the sandbox's HTTP
//! faces in `tests/`.

pub mod simulation;
