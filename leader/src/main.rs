//! `drover-leader`: one replica of the leader group.

use std::process::ExitCode;

use clap::Parser;

/// One replica of Drover's leader group.
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(flatten)]
    args: drover_leader::Args,
}

fn main() -> anyhow::Result<ExitCode> {
    drover_leader::main_with(Command::parse().args)
}
