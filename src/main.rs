//! The command line, nothing else.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kernel_gossip::{agent, config};
use tracing_subscriber::EnvFilter;

/// What the kernel knows about your pods and Kubernetes does not say
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the kernel of this node and say which cgroup or pod is refused the CPU, for how long and by whom
    Agent(agent::AgentArgs),
    /// Print a configuration file with every default
    Config,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel-gossip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Agent(args) => runtime()?.block_on(agent::run(args)),
        Command::Config => Ok(std::io::stdout().write_all(config::default_yaml().as_bytes())?),
    }
}

/// Two workers: the sampler has a thread of its own, the rest is network.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The log goes to stderr, so that stdout holds whispers alone; `RUST_LOG` sets what is logged.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Info, |_, line| {
        tracing::debug!(target: "libbpf", "{}", line.trim_end());
    })));
}
