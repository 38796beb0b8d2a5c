//! The `drover` command: the sandbox, and what operators type.

mod args;
mod bench;
mod crds;
mod narration;
mod role;
mod sandbox;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// Plans make and drop many small values: those of a few pods beside thousands of nodes take half the time of
/// the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return narration::usage(&error),
    };
    let result = match cli.command {
        Command::Sandbox(args) => sandbox::run(args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Leader(args) => role::run_leader(*args),
        Command::Agent(args) => role::run_agent(*args),
    };
    result.unwrap_or_else(|error| {
        narration::complain(&error);
        ExitCode::FAILURE
    })
}
