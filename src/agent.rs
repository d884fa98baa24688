//! The node agent: one thread that reads, attributes, judges and hands on; everything that may wait
//! (the API server, a collector, a scrape) is elsewhere.

use std::fmt::Debug;
use std::io::{PipeReader, PipeWriter};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use crate::api::{BirthOutcome, SlowPhase};
use crate::attribution::watch::{self, ApiError, Pods};
use crate::attribution::{AttributionOptions, Attributor};
use crate::birth::certificate::RETRIES;
use crate::birth::{Certificate, Watcher};
use crate::config::{Config, Kubernetes};
use crate::kernel::cost;
use crate::kernel::driver::{Driver, DriverOptions, Storage, now};
use crate::kernel::facts::{Facts, FactsOptions};
use crate::kernel::plan::{self, Plan, Verdict};
use crate::signals::naming::NameGate;
use crate::signals::{BirthHistory, Engine, Severity, SignalLosses, SlowBirthRule, Whisper};
use crate::sinks::otlp::{OtlpArgs, OtlpConfig, Unsent};
use crate::sinks::telemetry::Loss;
use crate::sinks::terminal::{Output, Terminal, text};
use crate::sinks::{Sinks, SinksConfig, birth_text, prometheus};

/// How long the sinks have, on SIGTERM, to write out what waits. The rest of the two seconds is for a
/// reading under way.
const FLUSH: Duration = Duration::from_millis(1500);

/// What the command line adds to the configuration file.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// The configuration file; `kernel-gossip config` prints one with every default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to write to stdout [default: text, or none with an OTLP endpoint]
    #[arg(long, value_enum)]
    pub output: Option<Output>,
    /// Where the host's cgroup file systems are mounted [default: as /proc/self/mountinfo says]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// The node's name in the API server [default: $NODE_NAME, else the host's]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The kubeconfig to reach the API server by [default: as kubectl, else the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A directory of a container runtime's bundles, before the usual ones; may be given again
    #[arg(long, value_name = "DIR")]
    pub runtime_root: Vec<PathBuf>,
    /// Serve Prometheus /metrics and /health here, such as 127.0.0.1:9464; :9464 is every address
    #[arg(long, value_name = "ADDR", value_parser = prometheus::address)]
    pub prometheus: Option<SocketAddr>,
    #[command(flatten)]
    pub otlp: OtlpArgs,
}

/// Runs until `shutdown`; then detaches, and writes out what waits.
///
/// # Errors
/// A configuration that is refused, or no cgroup file system at all.
pub async fn run(args: AgentArgs, shutdown: impl Future<Output = ()>) -> Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config.agent.node = args.node_name.clone().or(config.agent.node);
    let node = watch::node_name(config.agent.node.as_deref());

    let options = FactsOptions { cgroup_root: args.cgroup_root.clone(), ..FactsOptions::default() };
    let facts = Facts::gather(&options).await;
    let plan = plan::plan(&facts);
    announce(&plan)?;

    let pods = Arc::new(Pods::default());
    let watching = watch_pods(&config, &args, &node, &pods).await?;
    let node = node.ok();

    let otlp = OtlpConfig::new(&args.otlp, |name| std::env::var(name).ok())?;
    let default = if otlp.is_some() { Output::None } else { Output::Text };
    let output = args.output.or(config.sinks.terminal).unwrap_or(default);
    let terminal = Terminal::start(output, node.clone()).context("cannot start the terminal's thread")?;
    let sinks = Sinks::start(SinksConfig {
        node,
        otlp,
        prometheus: args.prometheus.or(config.sinks.prometheus),
        started: now(),
        interval: config.agent.interval,
    })?;
    if let Some(address) = sinks.metrics_address() {
        info!("serving http://{address}/metrics");
    }
    let sinks = Arc::new(sinks);
    let runtime_roots = runtime_roots(&config, &args);
    let mut driver = DriverOptions::of(&facts, &plan, config.agent.max_cgroups);
    let births = config
        .births
        .enabled
        .then(|| Watcher::new(config.births.options.clone(), &facts, &plan, &runtime_roots));
    driver.births = driver.births.filter(|_| births.is_some());
    let sampler = Sampler {
        interval: config.agent.interval,
        attributor: Attributor::new(AttributionOptions { runtime_roots, ..AttributionOptions::default() }),
        births,
        history: BirthHistory::default(),
        slow: config.rules.slow_birth.clone(),
        pods,
        engine: Engine::new(&config.rules),
        // Where no API server tells, no name is late.
        gate: NameGate::new(if watching { config.agent.name_wait } else { Duration::ZERO }),
        terminal,
        sinks: sinks.clone(),
    };
    let running = sampler.spawn(driver)?;
    shutdown.await;
    running.stop()?;
    // The sampler has ended and let go of its share.
    if let Some(sinks) = Arc::into_inner(sinks) {
        let unsent = sinks.flush(FLUSH).await;
        if unsent != Unsent::default() {
            warn!("the receiver did not take everything in time: {unsent:?}");
        }
    }
    Ok(())
}

/// Says once what runs here, and what does not and why.
///
/// # Errors
/// There is nothing at all to read.
fn announce(plan: &Plan) -> Result<()> {
    fn say<H: Debug>(probe: &str, verdict: &Verdict<H>) {
        match verdict {
            Verdict::Working { hook } => info!("{probe}: working ({hook:?})"),
            Verdict::Degraded { hook, .. } => warn!("{probe}: degraded ({hook:?})"),
            Verdict::Unavailable(_) => warn!("{probe}: unavailable"),
        }
        for shortfall in verdict.shortfalls() {
            warn!("{probe}: {}: {}", shortfall.why, shortfall.what_to_do);
        }
    }
    say("cpu", &plan.cpu);
    say("cgroups", &plan.cgroups);
    say("births", &plan.births);
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
    let wanted = config.agent.kubernetes == Kubernetes::On || args.kubeconfig.is_some();
    let client = match watch::client(args.kubeconfig.as_deref()).await {
        Ok(client) => client,
        Err(error) if wanted => return Err(error.into()),
        Err(ApiError::NoCluster) => {
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
        Err(error) => anyhow::bail!("{error}"),
    };
    let pods = pods.clone();
    tokio::spawn(async move { watch::watch(client, &node, &pods).await });
    Ok(true)
}

fn runtime_roots(config: &Config, args: &AgentArgs) -> Vec<PathBuf> {
    args.runtime_root.iter().chain(&config.agent.runtime_roots).cloned().collect()
}

/// Judges a birth by those before it. What went on for too long is slow already; how long it would have taken, or takes
/// a pod that is tried again, is not what is usual.
fn slow(history: &mut BirthHistory, rule: &SlowBirthRule, birth: &Certificate) -> Option<SlowPhase> {
    let phases = &birth.status.phases;
    // Seconds of the API server's are no measure.
    let measured = phases.iter().filter(|p| p.uncertainty_ms.is_none());
    let lengths: Vec<(&str, f64)> = measured.map(|p| (p.name.as_str(), p.duration_ms)).collect();
    let again = birth.status.missing.iter().any(|m| m.part == RETRIES);
    let slow = match birth.status.outcome? {
        BirthOutcome::Complete if !again => history.judge(rule, &lengths)?,
        BirthOutcome::Complete | BirthOutcome::Unfinished => history.compare(rule, &lengths)?,
        BirthOutcome::Failed => return None,
    };
    let severity = match slow.severity {
        Severity::Warning => crate::api::Severity::Warning,
        Severity::Critical => crate::api::Severity::Critical,
    };
    Some(SlowPhase { severity, phase: slow.phase, took_ms: slow.took_ms, usual_ms: slow.usual_ms })
}

/// Everything on the sampler's thread, left to right.
struct Sampler {
    interval: Duration,
    attributor: Attributor,
    /// `None`: the configuration says so.
    births: Option<Watcher>,
    history: BirthHistory,
    slow: SlowBirthRule,
    pods: Arc<Pods>,
    engine: Engine,
    gate: NameGate,
    terminal: Terminal,
    sinks: Arc<Sinks>,
}

/// The sampler's thread, and the way to end it.
struct Running {
    /// Its end is the sampler's.
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

impl Running {
    fn stop(self) -> Result<()> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sampler's thread panicked"))
    }
}

impl Sampler {
    fn spawn(self, options: DriverOptions) -> Result<Running> {
        let (stopped, stop) = std::io::pipe().context("cannot make a pipe")?;
        let thread = std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || self.run(options, &stopped))
            .context("cannot start the sampler's thread")?;
        Ok(Running { stop, thread })
    }

    fn run(mut self, options: DriverOptions, stopped: &PipeReader) {
        let mut storage = Storage::default();
        let mut driver = Driver::start(&mut storage, options);
        if let Some(births) = &mut self.births {
            births.drive(&mut driver);
        }
        self.sinks.stats().set_map_bytes(cost::map_memory());
        let (mut fresh, mut said) = (Vec::new(), Vec::new());
        let mut next = Instant::now();
        loop {
            self.step(&mut driver, &mut fresh, &mut said);
            // A reading that took longer than the interval delays the next, it is not made up for.
            next = (next + self.interval).max(Instant::now());
            if !self.wait(&mut driver, next, stopped) {
                break;
            }
        }
        // Probes first: nothing is attached while the rest is written out.
        drop(driver);
        let attributor = &self.attributor;
        self.gate.flush(|who| attributor.current(&who.cgroup), &mut said);
        self.say(&mut said);
        self.terminal.close(FLUSH);
    }

    /// Waits for the next reading, and meanwhile for births; false: it is time to end.
    fn wait(&mut self, driver: &mut Driver<'_>, next: Instant, stopped: &PipeReader) -> bool {
        // SAFETY: the driver's descriptors are open as long as it lives, which is longer than this list.
        let births: Vec<BorrowedFd<'static>> =
            driver.births_fds().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let patience = self.births.as_ref().and_then(Watcher::patience);
            let timeout = patience.map_or(left, |p| p.min(left));
            let fds = std::iter::once(stopped.as_fd()).chain(births.iter().copied());
            let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let timeout = Timespec::try_from(timeout).ok();
            // An error is EINTR: what is to be done is looked for all the same.
            let _ = poll(&mut fds, timeout.as_ref());
            if !fds[0].revents().is_empty() {
                return false;
            }
            self.births(driver);
            if Instant::now() >= next {
                return true;
            }
        }
    }

    fn births(&mut self, driver: &mut Driver<'_>) {
        let Some(births) = &mut self.births else { return };
        let certified = births.poll(driver, &self.pods);
        let drops = births.drops();
        certified.into_iter().for_each(|certificate| self.certify(certificate));
        let stats = self.sinks.stats();
        stats.set_lost(Loss::BirthDropped, drops.births);
        stats.set_lost(Loss::BirthRecord, drops.records);
    }

    fn certify(&mut self, mut birth: Certificate) {
        if !birth.restart {
            birth.status.slow = slow(&mut self.history, &self.slow, &birth);
        }
        let text = birth_text::text(&birth);
        self.terminal.birth(&birth, &text);
        self.sinks.birth(&birth, text);
    }

    fn say(&self, said: &mut Vec<Whisper>) {
        for whisper in said.drain(..) {
            self.terminal.say(&whisper);
            self.sinks.whisper(&whisper, text(&whisper));
        }
    }

    fn step(&mut self, driver: &mut Driver<'_>, fresh: &mut Vec<Whisper>, said: &mut Vec<Whisper>) {
        let begun = Instant::now();
        let reading = driver.read();
        let at = reading.at;
        if let Some(births) = &mut self.births {
            births.found(&reading.changes, at);
        }
        let attributed = self.attributor.attribute(reading, &self.pods.index());
        self.engine.step(attributed, fresh);
        self.sinks.publish(attributed);
        let attributor = &self.attributor;
        self.gate.pass(at.mono_ns, fresh, |who| attributor.current(&who.cgroup), said);
        self.say(said);
        let stats = self.sinks.stats();
        stats.set_lost(Loss::LateName, self.gate.unnamed());
        let SignalLosses { untracked_samples, untracked_blame } = self.engine.losses();
        stats.set_lost(Loss::SampleUntracked, untracked_samples);
        stats.set_lost(Loss::BlameUntracked, untracked_blame);
        stats.set_lost(Loss::TerminalDropped, self.terminal.dropped());
        stats.reading_took(begun.elapsed());
    }
}
