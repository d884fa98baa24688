//! The command line, nothing else.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kernel_gossip::ui::{birth, check, who};
use kernel_gossip::{agent, api, config, reconciler, top};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Shows what the kernel knows about your pods and Kubernetes does not report
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node's kernel and report which cgroup or pod is denied CPU time, for how long and by whom
    Agent(Box<agent::AgentArgs>),
    /// Report what this host allows, which probes run here, and what to do about those that do not
    ///
    /// Also tries the configured OTLP receivers. Exits 0 if the agent can run here (with BPF or from cgroup files only), 1
    /// otherwise.
    Check(Box<check::CheckArgs>),
    /// Show what starting a pod or container cost: which program did what, and how long each phase took
    Birth(birth::BirthArgs),
    /// Show which pod, container or service a process or cgroup belongs to, or which processes a pod has
    ///
    /// Needs no API server: names come from cgroup paths and the container runtime's files. With one, they are confirmed,
    /// and owner, CPU request and limit are added. Exits 0 if there is such a process, cgroup or pod on this node, 1
    /// otherwise.
    Who(who::WhoArgs),
    /// Show live which workloads lose time, to what, and who is to blame
    ///
    /// Reads the kernel itself, as the agent does (as root), attaches to a running agent (--attach), or shows what was
    /// recorded (--record, --replay). Nothing is changed on the machine, sent or served.
    Top(Box<top::TopArgs>),
    /// Print the agent's configuration file with all defaults
    Config {
        /// Print the JSON Schema of such files instead, for editors
        #[arg(long)]
        schema: bool,
    },
    /// Turn reports from agents and webhooks into Kubernetes objects
    Reconciler(Box<reconciler::ReconcilerOptions>),
    /// Print the CustomResourceDefinitions, for `kubectl apply -f -`
    Crds,
}

fn main() -> ExitCode {
    let command = Cli::command().mut_subcommand("reconciler", reconciler::options::without_empty_variables);
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    // A view tells on its screen what runs, and in `check` why something does not.
    log(if matches!(cli.command, Command::Top(_)) { "error" } else { "info" });
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kernel-gossip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Agent(args) => in_runtime(async { agent::run(*args, terminated()?).await })?,
        Command::Birth(args) => in_runtime(async { birth::run(&args, terminated()?).await })?,
        Command::Check(args) => return in_runtime(check::run(&args)),
        Command::Top(args) => in_runtime(async { top::run(*args, terminated()?).await })?,
        Command::Who(args) => in_runtime(who::run(&args))?,
        Command::Config { schema } => {
            let text = if schema { config::schema() } else { config::default_yaml() };
            std::io::stdout().write_all(text.as_bytes())?;
        }
        Command::Reconciler(options) => in_runtime(async { reconciler::run(*options, terminated()?).await })?,
        Command::Crds => std::io::stdout().write_all(api::crds_yaml().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Two workers: the sampler has a thread of its own, the rest is network. What still blocks a thread when the work
/// is done, such as the look-up of a name without an answer, is not waited for.
fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// SIGTERM or Ctrl-C.
fn terminated() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The log goes to stderr, so that stdout holds whispers alone (where a view has the terminal, once that is over); `RUST_LOG` sets what is logged. kube's own
/// lines, one a retry, are left out: who watches says once that the API server is lost, and once that it is back.
fn log(level: &str) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},kube_client=off,kube_runtime=off")));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(|| top::Log).init();
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Info, |_, line| {
        tracing::debug!(target: "libbpf", "{}", line.trim_end());
    })));
}
