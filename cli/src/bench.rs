//! `drover bench`: figures for `docs/benchmarks.md`, measured here and now.

mod agent;
mod dump;
mod filler;
mod fleet;
mod hostile;
mod memory;
mod notice;
mod plan;
mod process;
mod repack;
mod times;

use std::process::ExitCode;

use crate::args::BenchArgs;

/// Runs one benchmark and prints its figures.
pub(crate) fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    match args {
        BenchArgs::Agent(args) => agent::run(&args),
        BenchArgs::Memory(args) => memory::run(&args),
        BenchArgs::Dump(args) => dump::run(&args),
        BenchArgs::Fleet(args) => fleet::run(&args),
        BenchArgs::Hostile(args) => hostile::run(&args),
        BenchArgs::Notice(args) => notice::run(&args),
        BenchArgs::Plan(args) => plan::run(&args),
        BenchArgs::Repack(args) => repack::run(&args),
    }
}
