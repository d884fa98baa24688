//! The rules applied to every workload, reading by reading.

use foldhash::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use super::culprits::ByPath;
use super::growers::{Marks, growers};
use super::history::History;
use super::hysteresis::{Hysteresis, Judgement};
use super::kinds::{Seen, usable_cores};
use super::rules::Rule;
use super::whisper::{Neighbour, Transition, Whisper};
use super::window::{Counters, Growth, Window, nanos};
use crate::attribution::{Attributed, NamedBlame, Sample, Workload, WorkloadKind};
use crate::evidence::{Severity, SignalEvidence, SignalKind};
use crate::kernel::Instant;

/// A workload not heard of for this long is forgotten, and what it whispered resolved.
pub const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The kinds of signal, those that are not judged by windows among them.
const KINDS: usize = SignalKind::ALL.len();

/// All rules, by kind, and what the engine may keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// By kind.
    pub rules: [Rule; SignalKind::ALL.len()],
    /// Workloads watched at once; further ones are counted and not watched.
    pub max_workloads: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { rules: SignalKind::ALL.map(|kind| Rule::of(kind.kind().section())), max_workloads: 4096 }
    }
}

impl Index<SignalKind> for Rules {
    type Output = Rule;

    fn index(&self, kind: SignalKind) -> &Rule {
        &self.rules[kind as usize]
    }
}

impl IndexMut<SignalKind> for Rules {
    fn index_mut(&mut self, kind: SignalKind) -> &mut Rule {
        &mut self.rules[kind as usize]
    }
}

/// What happened to a workload, for signals that are events and no windows.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: SignalKind,
    pub severity: Severity,
    pub who: Arc<Workload>,
    pub evidence: SignalEvidence,
    pub at: Instant,
}

/// What the engine could not keep. Cumulative counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalLosses {
    /// Samples not watched because [`Rules::max_workloads`] were.
    pub untracked_samples: u64,
    /// Blame not kept because one victim had too many culprits.
    pub untracked_blame: u64,
    /// Numbers left out of whispers because they cannot be.
    pub impossible_numbers: u64,
}

/// All windows and active whispers of a node. Memory (`tests/budget/signals.rs`): about 4 KiB a workload,
/// twice that if the rules have windows of two lengths; 16 KiB more for each that is throttled and
/// whispers; 0.2 KiB for each pair of a workload and one that kept it waiting.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    /// The distinct lengths of window, and which of them each kind has; one that is not judged by windows has the first.
    lengths: Vec<Duration>,
    window_of: [usize; KINDS],
    tracked: HashMap<ByPath, Tracked>,
    /// What happened of late, and when it is over.
    happened: Vec<Happened>,
    /// Reclaim for the node so far, ns; and who had grown most when there was some last.
    node_reclaim: u64,
    growers: Vec<Neighbour>,
    /// The first reading is of workloads that were there before.
    begun: bool,
    losses: SignalLosses,
}

/// A whisper of what is no window's.
#[derive(Debug)]
struct Happened {
    whisper: Whisper,
    /// When it happened last, and when it was last said, ns of the monotonic clock.
    last_ns: u64,
    said_ns: u64,
}

/// Whispers of what happened that are kept at once; the oldest is resolved for another.
const HAPPENED_MAX: usize = 1024;

#[derive(Debug)]
struct Tracked {
    who: Arc<Workload>,
    seen_ns: u64,
    memory: Marks,
    windows: Box<[Window]>,
    /// Of each kind that is judged by windows. Not in the map itself, half of which is empty.
    signals: Box<[Signal]>,
    history: Option<Box<History>>,
}

#[derive(Debug, Default)]
struct Signal {
    hysteresis: Hysteresis,
    /// When it could be judged last, ns of the monotonic clock.
    judged_ns: u64,
    whisper: Option<Box<Whisper>>,
}

impl Engine {
    pub fn new(rules: &Rules) -> Self {
        let mut lengths = Vec::new();
        let window_of = SignalKind::ALL.map(|kind| {
            if !kind.is_windowed() {
                return 0;
            }
            let length = rules[kind].window;
            lengths.iter().position(|l| *l == length).unwrap_or_else(|| {
                lengths.push(length);
                lengths.len() - 1
            })
        });
        Engine {
            rules: rules.clone(),
            lengths,
            window_of,
            tracked: HashMap::default(),
            happened: Vec::new(),
            node_reclaim: 0,
            growers: Vec::new(),
            begun: false,
            losses: SignalLosses::default(),
        }
    }

    /// Takes a reading and adds what is to be said to `out`. To be called once an interval.
    pub fn step(&mut self, attributed: &Attributed, out: &mut Vec<Whisper>) {
        let (at, before) = (attributed.at, out.len());
        // The probe sees the agent itself, so where it runs at least one sample has its word.
        let probe = attributed.samples.iter().any(|s| s.cpu.is_some());
        for sample in attributed.samples.iter().filter(|s| judged(s, probe)) {
            self.announce(at, sample);
        }
        for blame in &attributed.blame {
            self.blame(blame);
        }
        self.begun = true;
        let reclaims = attributed.samples.iter().filter_map(|s| s.reclaim);
        let reclaimed = reclaims.map(|r| r.node).sum();
        if std::mem::replace(&mut self.node_reclaim, reclaimed) < reclaimed {
            self.growers = growers(self.tracked.values().map(|t| (&t.who, &t.memory)));
        }
        let (rules, lengths, window_of) = (&self.rules, &self.lengths, &self.window_of);
        let round = Round { rules, lengths, window_of, attributed, growers: &self.growers, probe };
        for sample in attributed.samples.iter().filter(|s| judged(s, probe)) {
            let Some(tracked) = self.tracked.get_mut(sample.who.cgroup.as_str()) else { continue };
            tracked.step(&round, sample, out);
            if sample.last {
                tracked.end(at, out);
                self.tracked.remove(sample.who.cgroup.as_str());
            }
        }
        self.tracked.retain(|_, tracked| {
            let present = at.mono_ns.saturating_sub(tracked.seen_ns) < nanos(FORGET_AFTER);
            if !present {
                tracked.end(at, out);
            }
            present
        });
        self.recall(at, out);
        self.bound(&mut out[before..]);
    }

    /// What is said is within the bounds of who takes it: it would refuse all of a whisper for one number that cannot be.
    fn bound(&mut self, said: &mut [Whisper]) {
        self.losses.impossible_numbers += said.iter_mut().map(|w| w.evidence.bound()).sum::<u64>();
    }

    /// Something happened to a workload: it is said at once, again every `repeat`, and resolved `hold` after it happened
    /// last. Of what happens again meanwhile the newest evidence counts.
    pub fn happened(&mut self, event: Event, out: &mut Vec<Whisper>) {
        let before = out.len();
        self.happens(event, out);
        self.bound(&mut out[before..]);
    }

    fn happens(&mut self, event: Event, out: &mut Vec<Whisper>) {
        let Event { kind, severity, who, mut evidence, at } = event;
        if !self.rules[kind].enabled {
            return;
        }
        let same = |h: &&mut Happened| h.whisper.signal == kind && h.whisper.who.cgroup == who.cgroup;
        if let Some(known) = self.happened.iter_mut().find(same) {
            let changed = known.whisper.severity != severity;
            known.last_ns = at.mono_ns;
            kind.kind().again(&known.whisper.evidence, &mut evidence);
            (known.whisper.severity, known.whisper.evidence, known.whisper.who) = (severity, evidence, who);
            known.say(if changed { Transition::Changed } else { Transition::Repeated }, at, out);
            return;
        }
        if self.happened.len() >= HAPPENED_MAX {
            self.happened.remove(0).say(Transition::Resolved, at, out);
        }
        let whisper = Whisper {
            signal: kind,
            severity,
            transition: Transition::Started,
            who,
            since: at,
            at,
            evidence,
            neighbours: Vec::new(),
            history: Vec::new(),
        };
        let mut new = Happened { whisper, last_ns: at.mono_ns, said_ns: at.mono_ns };
        new.say(Transition::Started, at, out);
        self.happened.push(new);
    }

    /// Says again what happened, or that it is over.
    fn recall(&mut self, at: Instant, out: &mut Vec<Whisper>) {
        let rules = &self.rules;
        self.happened.retain_mut(|known| {
            let rule = &rules[known.whisper.signal];
            let passed = |since: u64, time: Duration| at.mono_ns.saturating_sub(since) >= nanos(time);
            let over = passed(known.last_ns, rule.hold);
            if over {
                known.say(Transition::Resolved, at, out);
            } else if passed(known.said_ns, rule.repeat) {
                known.say(Transition::Repeated, at, out);
            }
            !over
        });
    }

    /// What whispers now, each with the evidence of the last reading.
    pub fn active(&self) -> impl Iterator<Item = &Whisper> {
        let judged = self.tracked.values().flat_map(|t| &*t.signals).filter_map(|s| s.whisper.as_deref());
        judged.chain(self.happened.iter().map(|known| &known.whisper))
    }

    /// Workloads watched now.
    pub fn tracked(&self) -> usize {
        self.tracked.len()
    }

    /// Whether a workload has a history now.
    #[cfg(test)]
    pub(super) fn keeps_history(&self, path: &str) -> bool {
        self.tracked.get(path).is_some_and(|t| t.history.is_some())
    }

    pub fn losses(&self) -> SignalLosses {
        self.losses
    }

    fn announce(&mut self, at: Instant, sample: &Sample) {
        let path = sample.who.cgroup.as_str();
        if !self.tracked.contains_key(path) {
            if self.tracked.len() >= self.rules.max_workloads {
                self.losses.untracked_samples += 1;
                return;
            }
            let memory = if self.begun { Marks::of_new(at) } else { Marks::default() };
            let new = Tracked { memory, ..Tracked::new(&sample.who, self.lengths.len()) };
            self.tracked.insert(ByPath(sample.who.clone()), new);
        }
        if let Some(tracked) = self.tracked.get_mut(path) {
            tracked.announce(at, sample);
        }
    }

    fn blame(&mut self, blame: &NamedBlame) {
        let Some(victim) = self.tracked.get_mut(blame.victim.cgroup.as_str()) else { return };
        for window in &mut victim.windows {
            if !window.blame(&blame.culprit, blame.ns) {
                self.losses.untracked_blame += 1;
            }
        }
    }
}

/// What is the same for every workload of a reading.
struct Round<'a> {
    rules: &'a Rules,
    lengths: &'a [Duration],
    window_of: &'a [usize],
    attributed: &'a Attributed,
    growers: &'a [Neighbour],
    /// The CPU probe runs.
    probe: bool,
}

impl Happened {
    fn say(&mut self, transition: Transition, at: Instant, out: &mut Vec<Whisper>) {
        self.said_ns = at.mono_ns;
        (self.whisper.transition, self.whisper.at) = (transition, at);
        out.push(self.whisper.clone());
    }
}

impl Tracked {
    fn new(who: &Arc<Workload>, windows: usize) -> Self {
        Tracked {
            who: who.clone(),
            seen_ns: 0,
            memory: Marks::default(),
            windows: (0..windows).map(|_| Window::default()).collect(),
            signals: windowed().map(|_| Signal::default()).collect(),
            history: None,
        }
    }

    fn announce(&mut self, at: Instant, sample: &Sample) {
        self.seen_ns = at.mono_ns;
        self.memory.note(at, sample.stat.memory_usage);
        if !Arc::ptr_eq(&self.who, &sample.who) {
            self.who = sample.who.clone();
        }
        let now = Counters::of(sample);
        for window in &mut self.windows {
            window.announce(&now);
        }
    }

    fn step(&mut self, round: &Round<'_>, sample: &Sample, out: &mut Vec<Whisper>) {
        let Round { rules, lengths, window_of, attributed, growers, probe } = *round;
        let at = attributed.at;
        let now = Counters::of(sample);
        let usable_cores = usable_cores(attributed.cpus, sample);
        let mut growths = [None; KINDS];
        for ((growth, window), length) in growths.iter_mut().zip(&mut self.windows).zip(lengths) {
            *growth = window.advance(*length, at, &now, sample).map(|mut growth| {
                growth.usable_cores = usable_cores;
                growth.of_others = sample.who.contains_others();
                growth
            });
        }

        let mut transitions = [None; KINDS];
        for (i, kind) in windowed() {
            let heard = sample.who.kind != WorkloadKind::Pod || !probe || kind.kind().of_pods();
            let growth = growths[window_of[kind as usize]].as_ref().filter(|_| heard);
            let judgement = growth.and_then(|g| judge(&rules[kind], kind, g));
            transitions[i] = self.signals[i].step(&rules[kind], at, judgement);
        }

        let throttled = |g: &Growth| g.counters.throttled_per_cpu().is_some_and(|ns| ns > 0);
        let wanted = growths.iter().flatten().any(throttled) || self.signals.iter().any(Signal::speaks);
        self.remember(at, &now, wanted);

        for (i, kind) in windowed() {
            let window = window_of[kind as usize];
            if let Some(growth) = &growths[window] {
                let cpus = attributed.cpus;
                let seen = Seen { at, sample, growth, window: &self.windows[window], growers, cpus };
                self.signals[i].update(kind, &seen, self.history.as_deref());
            }
            self.signals[i].say(transitions[i], at, out);
        }
    }

    /// Keeps the history while it is wanted and as long after as it reaches back.
    fn remember(&mut self, at: Instant, now: &Counters, wanted: bool) {
        match &mut self.history {
            Some(history) => {
                history.push(at, now);
                if !wanted && history.quiet(at) {
                    self.history = None;
                }
            }
            None if wanted => {
                let samples = self.windows.first().into_iter().flat_map(Window::samples);
                let mut history = Box::new(History::new(at, samples));
                history.push(at, now);
                self.history = Some(history);
            }
            None => {}
        }
    }

    fn end(&mut self, at: Instant, out: &mut Vec<Whisper>) {
        for signal in &mut *self.signals {
            let transition = signal.hysteresis.end();
            signal.say(transition, at, out);
        }
    }
}

impl Signal {
    /// One judgement further; what cannot be judged for too long is over.
    fn step(&mut self, rule: &Rule, at: Instant, judgement: Option<Judgement>) -> Option<Transition> {
        match judgement {
            Some(judgement) => {
                self.judged_ns = at.mono_ns;
                self.hysteresis.step(rule, at.mono_ns, judgement)
            }
            None if at.mono_ns.saturating_sub(self.judged_ns) >= nanos(FORGET_AFTER) => self.hysteresis.end(),
            None => None,
        }
    }

    fn speaks(&self) -> bool {
        self.hysteresis.severity().is_some()
    }

    /// Brings the whisper to the newest evidence, if there is or now begins one.
    fn update(&mut self, kind: SignalKind, seen: &Seen<'_>, history: Option<&History>) {
        if let (None, Some(severity)) = (&self.whisper, self.hysteresis.severity()) {
            self.whisper = Some(Box::new(Whisper {
                signal: kind,
                severity,
                transition: Transition::Started,
                who: seen.sample.who.clone(),
                since: seen.at,
                at: seen.at,
                evidence: SignalEvidence::default(),
                neighbours: Vec::new(),
                history: Vec::new(),
            }));
        }
        let Some(whisper) = &mut self.whisper else { return };
        if let Some(severity) = self.hysteresis.severity() {
            whisper.severity = severity;
        }
        whisper.at = seen.at;
        if !Arc::ptr_eq(&whisper.who, &seen.sample.who) {
            whisper.who = seen.sample.who.clone();
        }
        whisper.evidence.window_seconds = Some(seen.growth.seconds);
        kind.kind().fill(whisper, seen);
        match history {
            Some(history) => history.copy_to(&mut whisper.history),
            None => whisper.history.clear(),
        }
    }

    fn say(&mut self, transition: Option<Transition>, at: Instant, out: &mut Vec<Whisper>) {
        let (Some(transition), Some(whisper)) = (transition, &mut self.whisper) else { return };
        whisper.transition = transition;
        whisper.at = at;
        out.push((**whisper).clone());
        if !whisper.active() {
            self.whisper = None;
        }
    }
}

/// Whether a sample is one to whisper about. A pod's own cgroup runs no tasks, so it has a word only
/// where cpu.stat is all there is, and of its network; nobody set a limit on the root.
fn judged(sample: &Sample, probe: bool) -> bool {
    match sample.who.kind {
        WorkloadKind::Container | WorkloadKind::Sandbox | WorkloadKind::Unit | WorkloadKind::Cgroup => true,
        WorkloadKind::Pod => !probe || sample.network.is_some(),
        WorkloadKind::Root => false,
    }
}

/// The kinds that are judged by windows, each with its place.
fn windowed() -> impl Iterator<Item = (usize, SignalKind)> {
    SignalKind::windowed().enumerate()
}

fn judge(rule: &Rule, kind: SignalKind, growth: &Growth) -> Option<Judgement> {
    rule.enabled.then(|| kind.kind().judge(rule, growth))?
}
