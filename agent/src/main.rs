//! `drover-agent`: guards one node.

use std::process::ExitCode;

use clap::Parser;

/// Guards one node: acts on interruption notices within a second, drains, and reports to the leaders.
#[derive(Debug, Parser)]
#[command(name = "drover-agent", version, about, max_term_width = 100)]
struct Command {
    #[command(flatten)]
    args: drover_agent::Args,
}

fn main() -> anyhow::Result<ExitCode> {
    drover_agent::main_with(Command::parse().args)
}
