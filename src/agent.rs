//! The node agent: one thread that reads, attributes, judges and hands on; everything that may wait
//! (the API server, a collector, a scrape) is elsewhere.

use std::io::{PipeReader, PipeWriter};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::api::{BirthOutcome, SlowPhase};
use crate::attribution::watch::{self, ApiError, Pods};
use crate::attribution::{AttributionOptions, Attributor, Workload};
use crate::birth::certificate::RETRIES;
use crate::birth::{Certificate, Watcher};
use crate::config::{Config, Kubernetes};
use crate::kernel::driver::{Driver, DriverOptions, Storage};
use crate::kernel::facts::{Facts, FactsOptions};
use crate::kernel::oom::{Kill, Limit};
use crate::kernel::plan::{self, Plan};
use crate::kernel::{Instant as Moment, clock, cost};
use crate::kubeconfig::Unusable;
use crate::signals::naming::NameGate;
use crate::signals::{
    self, BirthHistory, Engine, Event, Found, Rule, SignalKind, SignalLosses, Slow, Whisper,
};
use crate::sinks::frames::Frames;
use crate::sinks::otlp::{self, OtlpArgs, OtlpConfig};
use crate::sinks::telemetry::Loss;
use crate::sinks::terminal::{Output, Terminal, text};
use crate::sinks::{Sinks, SinksConfig, birth_text, prometheus};

/// How long the end may take, from SIGTERM on: the reading under way, and all sinks with what waits. Two seconds
/// are promised; the rest is the process's own.
const END: Duration = Duration::from_millis(1500);

const PANICKED: &str = "the sampler's thread panicked, nothing is read any more: start the agent again, and report the \
                        panic above";

/// What the command line adds to the configuration file.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// Configuration file; `kernel-gossip config` prints one with all defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to write to stdout [default: text, or none if an OTLP endpoint is set]
    #[arg(long, value_enum)]
    pub output: Option<Output>,
    /// Mount point of the host's cgroup file systems [default: from /proc/self/mountinfo]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Name of this node in the API server [default: $NODE_NAME, else the host name]
    #[arg(long, value_name = "NAME", value_parser = |name: &str| watch::valid_node_name(name))]
    pub node_name: Option<String>,
    /// Kubeconfig of the API server [default: as kubectl finds it, else the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory of a container runtime's files, searched before the defaults; may be repeated
    #[arg(long, value_name = "DIR")]
    pub runtime_root: Vec<PathBuf>,
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
        cgroup_root: args.cgroup_root.clone(),
        ask_kubernetes: config.agent.kubernetes != Kubernetes::Off,
        kubeconfig: args.kubeconfig.clone(),
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
    let wanted = config.agent.kubernetes == Kubernetes::On || args.kubeconfig.is_some();
    let client = match watch::client(args.kubeconfig.as_deref()).await {
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
    args.runtime_root.iter().chain(&config.agent.runtime_roots).cloned().collect()
}

/// Judges a birth by those before it. What went on for too long is slow already; how long it would have taken, or takes
/// a pod that is tried again, is not what is usual.
fn slow(history: &mut BirthHistory, rule: &Rule, birth: &Certificate) -> Option<Slow> {
    let phases = &birth.status.phases;
    // Seconds of the API server's are no measure.
    let measured = phases.iter().filter(|p| p.uncertainty_ms.is_none());
    let lengths: Vec<(&str, f64)> = measured.map(|p| (p.name.as_str(), p.duration_ms)).collect();
    let again = birth.status.missing.iter().any(|m| m.part == RETRIES);
    match birth.status.outcome? {
        BirthOutcome::Complete if !again => history.judge(rule, &lengths),
        BirthOutcome::Complete | BirthOutcome::Unfinished => history.compare(rule, &lengths),
        BirthOutcome::Failed => None,
    }
}

/// Everything on the sampler's thread, left to right.
struct Sampler {
    interval: Duration,
    attributor: Attributor,
    /// `None`: the configuration says so.
    births: Option<Watcher>,
    history: BirthHistory,
    slow: Rule,
    pods: Arc<Pods>,
    engine: Engine,
    /// What happened since the last reading.
    happened: Vec<Whisper>,
    /// Kills of which no reading has told yet whose cgroup it was.
    kills: Vec<Kill>,
    gate: NameGate,
    terminal: Terminal,
    sinks: Arc<Sinks>,
}

/// The sampler's thread, and the way to end it.
struct Running<T> {
    /// Its end is the sampler's.
    stop: PipeWriter,
    /// What the thread leaves.
    left: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Running<T> {
    /// `work` is to end when its pipe does.
    fn start(work: impl FnOnce(&PipeReader) -> T + Send + 'static) -> Result<Self> {
        let (stopped, stop) = std::io::pipe().context("cannot make a pipe")?;
        let (leave, left) = oneshot::channel();
        std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || drop(leave.send(work(&stopped))))
            .context("cannot start the sampler's thread")?;
        Ok(Running { stop, left })
    }

    /// Waits for `shutdown`, or the thread's own end, which is a bug, and ends it: what it leaves, nothing if it does
    /// not end in time, and when the time is over for all the rest.
    async fn until(self, shutdown: impl Future<Output = ()>) -> (Result<Option<T>>, Instant) {
        let Running { stop, mut left } = self;
        let ended = tokio::select! {
            () = shutdown => None,
            left = &mut left => Some(left),
        };
        let deadline = Instant::now() + END;
        drop(stop);
        let left = match ended {
            Some(left) => Ok(left),
            None => tokio::time::timeout_at(deadline.into(), left).await,
        };
        let left = match left {
            Ok(left) => left.map(Some).map_err(|_| anyhow::anyhow!(PANICKED)),
            Err(_) => {
                warn!("a reading does not end: what it read last is not published");
                Ok(None)
            }
        };
        (left, deadline)
    }
}

impl Sampler {
    fn run(mut self, options: DriverOptions, stopped: &PipeReader) -> Terminal {
        let mut storage = Storage::default();
        let mut driver = Driver::start(&mut storage, options);
        if let Some(births) = &mut self.births {
            births.drive(&mut driver);
        }
        self.sinks.stats().set_map_bytes(cost::map_memory());
        let (mut fresh, mut said) = (Vec::new(), Vec::new());
        let mut next = Instant::now();
        self.step(&mut driver, &mut fresh, &mut said);
        info!("watching");
        loop {
            // A reading that took longer than the interval delays the next, it is not made up for.
            next = (next + self.interval).max(Instant::now());
            if !self.wait(&mut driver, next, stopped) {
                break;
            }
            self.step(&mut driver, &mut fresh, &mut said);
        }
        driver.read_kills(&mut self.kills);
        self.tell_kills(clock::instant(), |attributor, kill| Some(attributor.supposed(&kill.place)));
        // Probes first: nothing is attached while the rest is written out.
        drop(driver);
        let held = self.births.as_mut().map_or_else(Vec::new, Watcher::give_up);
        held.into_iter().for_each(|certificate| self.certify(certificate));
        let attributor = &self.attributor;
        said.append(&mut self.happened);
        self.gate.flush(|who| attributor.current(&who.cgroup), &mut said);
        self.say(&mut said);
        self.count_unsaid();
        self.terminal
    }

    /// Waits for the next reading, and meanwhile for births; false: it is time to end.
    fn wait(&mut self, driver: &mut Driver<'_>, next: Instant, stopped: &PipeReader) -> bool {
        // SAFETY: the driver's descriptors are open as long as it lives, which is longer than this list.
        let births: Vec<BorrowedFd<'static>> =
            driver.fds().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let patience = self.births.as_ref().and_then(Watcher::patience);
            let timeout = patience.into_iter().chain(driver.kills_within()).fold(left, Duration::min);
            let fds = std::iter::once(stopped.as_fd()).chain(births.iter().copied());
            let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let timeout = Timespec::try_from(timeout).ok();
            // An error is EINTR: what is to be done is looked for all the same.
            let _ = poll(&mut fds, timeout.as_ref());
            if !fds[0].revents().is_empty() {
                return false;
            }
            self.births(driver);
            self.kills(driver);
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

    /// Says at once what the kernel killed, so that it is known before the container is started again; of a cgroup that no
    /// reading has told of, after the next.
    fn kills(&mut self, driver: &mut Driver<'_>) {
        driver.read_kills(&mut self.kills);
        let now = clock::instant();
        self.tell_kills(now, |attributor, kill| attributor.told(&kill.place));
        if !self.happened.is_empty() {
            let (mut fresh, mut said) = (std::mem::take(&mut self.happened), Vec::new());
            let attributor = &self.attributor;
            self.gate.pass(now.mono_ns, &mut fresh, |who| attributor.current(&who.cgroup), &mut said);
            self.say(&mut said);
        }
    }

    /// Tells the engine of the kills of which it is known whose they are.
    fn tell_kills(&mut self, now: Moment, whose: impl Fn(&Attributor, &Kill) -> Option<Arc<Workload>>) {
        let Sampler { kills, attributor, engine, happened, .. } = self;
        kills.retain(|kill| {
            let Some(who) = whose(attributor, kill) else { return true };
            let limit = match &kill.limit {
                Limit::Cgroup { path: Some(path), .. } if *path != who.cgroup => attributor.current(path),
                Limit::Cgroup { path: Some(_), .. } => Some(who.clone()),
                _ => None,
            };
            let asker = kill.asker.as_ref().and_then(|asker| attributor.told(&asker.place));
            let (severity, evidence) = signals::found(&Found { kill, who: &who, limit, asker });
            let ago = now.mono_ns.saturating_sub(kill.at_ns);
            let at = Moment { mono_ns: kill.at_ns, unix_ns: now.unix_ns.saturating_sub(ago) };
            engine.happened(Event { kind: SignalKind::OomKill, severity, who, evidence, at }, happened);
            false
        });
    }

    fn certify(&mut self, mut birth: Certificate) {
        // A container that is started again was born already.
        let judged = (!birth.restart).then(|| slow(&mut self.history, &self.slow, &birth)).flatten();
        if let Some(slow) = judged {
            let (kind, severity, evidence) = (SignalKind::SlowBirth, slow.severity, slow.evidence());
            let event = Event { kind, severity, who: Arc::new(birth.who.clone()), evidence, at: birth.at };
            self.engine.happened(event, &mut self.happened);
            let Slow { phase, took_ms, usual_ms, .. } = slow;
            birth.status.slow = Some(SlowPhase { severity, phase, took_ms, usual_ms });
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
        driver.read_kills(&mut self.kills);
        self.tell_kills(at, |attributor, kill| {
            let may_come = kill.at_ns > at.mono_ns;
            attributor.told(&kill.place).or_else(|| (!may_come).then(|| attributor.supposed(&kill.place)))
        });
        fresh.append(&mut self.happened);
        let attributor = &self.attributor;
        self.gate.pass(at.mono_ns, fresh, |who| attributor.current(&who.cgroup), said);
        self.say(said);
        self.count_unsaid();
        let births = self.births.as_ref();
        self.sinks.read(|| births.map_or_else(Vec::new, Watcher::under_way));
        let stats = self.sinks.stats();
        let SignalLosses { untracked_samples, untracked_blame, impossible_numbers } = self.engine.losses();
        stats.set_lost(Loss::SampleUntracked, untracked_samples);
        stats.set_lost(Loss::BlameUntracked, untracked_blame);
        stats.set_lost(Loss::ImpossibleNumber, impossible_numbers);
        stats.reading_took(begun.elapsed());
    }

    /// Counts the whispers that went out without a name, and those not shown.
    fn count_unsaid(&self) {
        let stats = self.sinks.stats();
        stats.set_lost(Loss::LateName, self.gate.unnamed());
        stats.set_lost(Loss::TerminalDropped, self.terminal.dropped());
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_panic_where_it_reads_is_the_end() {
        let running = Running::start(|_| panic!("a bug")).expect("a thread");
        let (left, _) = running.until(pending()).await;
        let left: Result<Option<()>> = left;
        assert!(left.expect_err("it panicked").to_string().contains("panicked"));
    }

    #[tokio::test]
    async fn what_ends_in_time_leaves_its_own_and_what_does_not_leaves_nothing() {
        let until_stopped =
            |mut stopped: &PipeReader| stopped.read_to_end(&mut Vec::new()).expect("the pipe's end");
        let running = Running::start(until_stopped).expect("a thread");
        let (left, _) = running.until(ready(())).await;
        assert_eq!(left.expect("no panic"), Some(0));

        let (never, hold) = std::io::pipe().expect("a pipe");
        let running = Running::start(move |_| until_stopped(&never)).expect("a thread");
        let (left, deadline) = running.until(ready(())).await;
        assert_eq!(left.expect("no panic"), None);
        assert!(Instant::now() >= deadline);
        drop(hold);
    }
}
