//! What the sampler's thread does: reads the probes once an interval, attributes, judges, and hands on; and births and kills as they
//! happen.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::info;

use crate::api::{BirthOutcome, SlowPhase};
use crate::attribution::watch::Pods;
use crate::attribution::{Attributor, Workload};
use crate::birth::certificate::RETRIES;
use crate::birth::{Certificate, Watcher};
use crate::kernel::driver::{Driver, DriverOptions, Storage};
use crate::kernel::oom::{Kill, Limit};
use crate::kernel::{Instant as Moment, clock, cost};
use crate::signals::naming::NameGate;
use crate::signals::{
    self, BirthHistory, Engine, Event, Found, Rule, SignalKind, SignalLosses, Slow, Whisper,
};
use crate::sinks::telemetry::Loss;
use crate::sinks::terminal::{Terminal, text};
use crate::sinks::{Sinks, birth_text};

/// Everything on the sampler's thread, left to right.
pub(super) struct Sampler {
    pub(super) interval: Duration,
    pub(super) attributor: Attributor,
    /// `None`: the configuration says so.
    pub(super) births: Option<Watcher>,
    pub(super) history: BirthHistory,
    pub(super) slow: Rule,
    pub(super) pods: Arc<Pods>,
    pub(super) engine: Engine,
    /// What happened since the last reading.
    pub(super) happened: Vec<Whisper>,
    /// Kills of which no reading has told yet whose cgroup it was.
    pub(super) kills: Vec<Kill>,
    pub(super) gate: NameGate,
    pub(super) terminal: Terminal,
    pub(super) sinks: Arc<Sinks>,
}

impl Sampler {
    /// Reads until the pipe ends, then says what is left.
    pub(super) fn run(mut self, options: DriverOptions, stopped: &PipeReader) -> Terminal {
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
