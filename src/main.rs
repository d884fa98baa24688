//! The command line, nothing else.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kernel_gossip::reconciler::{self, ReconcilerOptions};
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
    /// Turn what agents and others report into Kubernetes objects
    Reconciler(Box<ReconcilerOptions>),
    /// Print the definitions of the Kubernetes objects, for `kubectl apply -f -`
    Crds,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel-gossip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Reconciler(options) => {
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            reconciler::run(*options, terminated()?).await
        }
        Command::Crds => {
            print!("{}", kernel_gossip::api::crds_yaml());
            Ok(())
        }
    }
}

/// SIGTERM or Ctrl-C.
fn terminated() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
