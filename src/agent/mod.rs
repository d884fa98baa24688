//! The node agent: one thread that reads, attributes, judges and hands on; everything that may wait
//! (the API server, a collector, a scrape) is elsewhere.
//!
//! Inside belongs what ties the rooms on its left together: [`run`] starts them all, [`sampler`] is what the one thread does, [`thread`]
//! how it begins and ends. What any of it decides does not.

mod sampler;
mod thread;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::attribution::watch::{self, ApiError, Pods};
use crate::attribution::{AttributionOptions, Attributor, HostArgs};
use crate::birth::Watcher;
use crate::config::{Config, Kubernetes};
use crate::kernel::clock;
use crate::kernel::driver::DriverOptions;
use crate::kernel::facts::{Facts, FactsOptions};
use crate::kernel::plan::{self, Plan};
use crate::kubeconfig::Unusable;
use crate::signals::naming::NameGate;
use crate::signals::{BirthHistory, Engine, SignalKind};
use crate::sinks::frames::Frames;
use crate::sinks::otlp::{self, OtlpArgs, OtlpConfig};
use crate::sinks::terminal::{Output, Terminal};
use crate::sinks::{Sinks, SinksConfig, prometheus};
use sampler::Sampler;
use thread::Running;

/// What the command line adds to the configuration file.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// Configuration file; `kernel-gossip config` prints one with all defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to write to stdout [default: text, or none if an OTLP endpoint is set]
    #[arg(long, value_enum)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub host: HostArgs,
    /// Name of this node in the API server [default: $NODE_NAME, else the host name]
    #[arg(long, value_name = "NAME", value_parser = |name: &str| watch::valid_node_name(name))]
    pub node_name: Option<String>,
    /// Serve Prometheus /metrics and /health on this address, such as 127.0.0.1:9464; :9464 listens on all addresses
    #[arg(long, value_name = "ADDR", value_parser = prometheus::address)]
    pub prometheus: Option<SocketAddr>,
    #[command(flatten)]
    pub otlp: OtlpArgs,
}

/// Runs until `shutdown`; then detaches, and writes out what waits.
///
/// # Errors
/// A configuration that is refused, no cgroup file system at all, or a panic where it reads.
pub async fn run(args: AgentArgs, shutdown: impl Future<Output = ()>) -> Result<()> {
    until(start(args, Kept::All), shutdown).await
}

/// The same for a live view of its own, which `frames` hands what it is to show: nothing is written, sent or served. With an
/// `interval`, not the configuration's.
///
/// # Errors
/// As [`run`].
pub async fn live(
    args: AgentArgs,
    interval: Option<Duration>,
    frames: oneshot::Sender<Arc<Frames>>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let start = async move {
        let started = start(args, Kept::Frames { interval }).await?;
        // Nobody waits for them any more only where the view ends.
        let _ = frames.send(started.sinks.frames().clone());
        Ok(started)
    };
    until(start, shutdown).await
}

/// What is made of the readings.
#[derive(Clone, Copy)]
enum Kept {
    All,
    /// For a live view alone.
    Frames {
        interval: Option<Duration>,
    },
}

async fn until(
    start: impl Future<Output = Result<Started>> + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    // On a thread of the runtime's, as some of it blocks: the end does not wait for the start.
    let started = tokio::select! {
        started = tokio::spawn(start) => started.context("the start failed")??,
        () = &mut shutdown => return Ok(()),
    };
    let Started { running, sinks } = started;
    let (terminal, deadline) = running.until(shutdown).await;
    let (terminal, ended) = match terminal {
        Ok(terminal) => (terminal, Ok(())),
        Err(error) => (None, Err(error)),
    };
    write_out(terminal, &sinks, deadline).await;
    ended
}

/// A running agent.
struct Started {
    /// Leaves the terminal, which may have whispers to show.
    running: Running<Terminal>,
    sinks: Arc<Sinks>,
}

async fn start(args: AgentArgs, kept: Kept) -> Result<Started> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Kept::Frames { interval } = kept {
        config.agent.interval = interval.unwrap_or(config.agent.interval);
        (config.sinks.prometheus, config.sinks.terminal) = (None, Some(Output::None));
    }
    config.agent.node = args.node_name.clone().or(config.agent.node);
    let node = watch::node_name(config.agent.node.as_deref());

    let options = FactsOptions {
        cgroup_root: args.host.cgroup_root.clone(),
        ask_kubernetes: config.agent.kubernetes != Kubernetes::Off,
        kubeconfig: args.host.kubeconfig.clone(),
        ..FactsOptions::default()
    };
    let facts = Facts::gather(&options).await;
    let plan = plan::plan(&facts);
    announce(&plan)?;

    let pods = Arc::new(Pods::default());
    let watching = watch_pods(&config, &args, &node, &pods).await?;
    let node = node.ok();

    let env = |name: &str| std::env::var(name).ok();
    let otlp = match kept {
        Kept::All => OtlpConfig::new(&args.otlp, env)?,
        Kept::Frames { .. } => None,
    };
    if matches!(kept, Kept::All) {
        otlp::remarks(&args.otlp, env).iter().for_each(|remark| warn!("{remark}"));
    }
    let default = if otlp.is_some() { Output::None } else { Output::Text };
    let output = args.output.or(config.sinks.terminal).unwrap_or(default);
    let terminal = Terminal::start(output, node.clone()).context("cannot start the terminal's thread")?;
    let sinks = Sinks::start(SinksConfig {
        node,
        otlp,
        prometheus: args.prometheus.or(config.sinks.prometheus),
        started: clock::instant(),
        interval: config.agent.interval,
    })?;
    if let Some(address) = sinks.metrics_address() {
        info!("serving http://{address}/metrics");
    }
    let sinks = Arc::new(sinks);
    let runtime_roots = runtime_roots(&config, &args);
    let mut driver = DriverOptions::of(&facts, &plan, config.agent.max_cgroups);
    let births =
        config.births.enabled.then(|| Watcher::new(config.births.options(), &facts, &plan, &runtime_roots));
    driver.births = driver.births.filter(|_| births.is_some());
    let sampler = Sampler {
        interval: config.agent.interval,
        attributor: Attributor::new(AttributionOptions { runtime_roots, ..AttributionOptions::default() }),
        births,
        history: BirthHistory::default(),
        slow: config.rules[SignalKind::SlowBirth].clone(),
        pods,
        engine: Engine::new(&config.rules),
        happened: Vec::new(),
        kills: Vec::new(),
        // Where no API server tells, no name is late.
        gate: NameGate::new(if watching { config.agent.name_wait } else { Duration::ZERO }),
        terminal,
        sinks: sinks.clone(),
    };
    let running = Running::start(move |stopped| sampler.run(driver, stopped))?;
    Ok(Started { running, sinks })
}

/// Lets the sinks write out what waits, one beside the other, as far as they come until the deadline.
async fn write_out(terminal: Option<Terminal>, sinks: &Sinks, deadline: Instant) {
    let left = move || deadline.saturating_duration_since(Instant::now());
    let closing = tokio::task::spawn_blocking(move || terminal.map(|terminal| terminal.close(left())));
    sinks.flush(left()).await;
    // It ends at the deadline, and has said what it could not show.
    let _ = closing.await;
}

/// Says once what runs here, and what does not and why.
///
/// # Errors
/// There is nothing at all to read.
fn announce(plan: &Plan) -> Result<()> {
    for line in plan.summary() {
        if line.lacking { warn!("{}", line.text) } else { info!("{}", line.text) }
    }
    anyhow::ensure!(plan.runs(), "nothing to read here: `kernel-gossip check` says what to do");
    Ok(())
}

/// Begins to watch the node's pods, if there is an API server to ask; says whether there is.
async fn watch_pods(
    config: &Config,
    args: &AgentArgs,
    node: &Result<String, ApiError>,
    pods: &Arc<Pods>,
) -> Result<bool> {
    if config.agent.kubernetes == Kubernetes::Off {
        return Ok(false);
    }
    let wanted = config.agent.kubernetes == Kubernetes::On || args.host.kubeconfig.is_some();
    let client = match watch::client(args.host.kubeconfig.as_deref()).await {
        Ok(client) => client,
        Err(error) if wanted => return Err(error.into()),
        Err(ApiError::Unusable(Unusable::NoCluster)) => {
            info!("no Kubernetes here: names are those of the container runtime and systemd");
            return Ok(false);
        }
        Err(error) => {
            warn!("{error}: pods are named by the container runtime alone");
            return Ok(false);
        }
    };
    let node = match node {
        Ok(node) => node.clone(),
        Err(error) if config.agent.kubernetes == Kubernetes::On => anyhow::bail!("{error}"),
        Err(error) => {
            warn!("{error}; until then pods are named by the container runtime alone");
            return Ok(false);
        }
    };
    let pods = pods.clone();
    tokio::spawn(async move { watch::watch(client, &node, &pods).await });
    Ok(true)
}

fn runtime_roots(config: &Config, args: &AgentArgs) -> Vec<PathBuf> {
    args.host.runtime_root.iter().chain(&config.agent.runtime_roots).cloned().collect()
}
