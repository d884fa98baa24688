//! The command line, nothing else.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kernel_gossip::ui::check::{self, CheckArgs};

/// What the kernel knows about your pods and Kubernetes does not say
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what this host allows, which probes run here, and what to do about those that do not
    ///
    /// Exits with 0 if the agent can run here, be it from cgroup files alone, else with 1.
    Check(CheckArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kernel-gossip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(&args, &[]).await,
    }
}
