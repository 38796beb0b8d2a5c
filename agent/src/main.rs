//! `drover-agent`: guards one node.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Guards one node: acts on interruption notices within a second, drains, and reports to the leaders.
#[derive(Debug, Parser)]
#[command(name = "drover-agent", version, about, max_term_width = 100)]
struct Command {
    #[command(flatten)]
    args: drover_agent::Args,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do instead of guarding.
#[derive(Debug, Subcommand)]
enum Action {
    /// Check the settings, files and folders, and do nothing with them.
    Validate,
}

fn main() -> anyhow::Result<ExitCode> {
    let Command { args, action } = Command::parse();
    match action {
        Some(Action::Validate) => drover_agent::validate(args),
        None => drover_agent::main_with(args),
    }
}
