//! `drover-leader`: one replica of the leader group.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Plans make and drop many small values: those of a few pods beside thousands of nodes take half the time of
/// the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One replica of Drover's leader group.
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(flatten)]
    args: drover_leader::Args,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do instead of leading.
#[derive(Debug, Subcommand)]
enum Action {
    /// Check the settings and files, and do nothing with them.
    Validate,
}

fn main() -> anyhow::Result<ExitCode> {
    let Command { args, action } = Command::parse();
    match action {
        Some(Action::Validate) => drover_leader::validate(args),
        None => drover_leader::main_with(args),
    }
}
