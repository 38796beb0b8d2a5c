//! `drover-leader`: one replica of the leader group.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
