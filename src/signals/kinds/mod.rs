//! One file a signal: when it is said, what it shows, how it reads, what helps. The rest of the program knows no signal by
//! name; [`words`](crate::evidence::SignalKind) has the one list.
//!
//! Inside belongs what one signal has and no other; what all have is beside this folder.

mod cpu;

use std::fmt::Debug;

use super::hysteresis::Judgement;
use super::rules::{Rule, Section};
use super::whisper::{Neighbour, Whisper};
use super::window::{Growth, Window};
use crate::advice::{Evidence, NodeFacts, Recommendation};
use crate::attribution::Sample;
use crate::evidence::{SignalEvidence, SignalKind, Source};
use crate::kernel::Instant;

pub use cpu::usable_cores;
pub use oom_kill::{Found, found};
pub use slow_birth::{BirthHistory, Slow};

/// One kind of signal.
pub trait Kind: Debug + Sync {
    /// What it means of a workload, in one sentence: the registry's word.
    fn brief(&self) -> &'static str;

    /// Its section in the configuration; `None`: the agent does not say it, others report it.
    fn section(&self) -> Option<&'static Section> {
        None
    }

    /// What its rule makes of a window; `None` where nothing measured it.
    fn judge(&self, _rule: &Rule, _growth: &Growth) -> Option<Judgement> {
        None
    }

    /// Fills in what is known of the window.
    fn fill(&self, _whisper: &mut Whisper, _seen: &Seen<'_>) {}

    /// It happened again while it is said: what the evidence before has to be in the new one's.
    fn again(&self, _before: &SignalEvidence, _now: &mut SignalEvidence) {}

    /// The number it is about, to compare two of one kind.
    fn size(&self, numbers: &SignalEvidence) -> f64;

    /// The one thing to know, in a few words: column KERNEL, the terminal, the body of the event.
    fn headline(&self, numbers: &SignalEvidence) -> String;

    /// What the terminal says after the headline and its window.
    fn details(&self, _whisper: &Whisper) -> String {
        String::new()
    }

    /// What happened to `who`, as a sentence without its end; `None`: the headline says it.
    fn sentence(&self, _who: &str, _numbers: &SignalEvidence) -> Option<String> {
        None
    }

    /// What it would have used without what this is about, at most, cores.
    fn at_most(&self, numbers: &SignalEvidence) -> Option<f64> {
        numbers.cpu().demand_cores
    }

    /// It is its neighbours' doing: an object names the first of them.
    fn blames(&self) -> bool {
        false
    }

    /// What its neighbours did.
    fn neighbours_did(&self) -> &'static str {
        "ran meanwhile"
    }

    /// A higher CPU limit settles it: remediation may set one.
    fn wants_a_higher_limit(&self) -> bool {
        false
    }

    /// It is of pods as a whole, though their containers speak for themselves; and its advice too.
    fn of_pods(&self) -> bool {
        false
    }

    /// What to do about it.
    fn advise(&self, evidence: &Evidence, _node: NodeFacts) -> Recommendation {
        Recommendation::none(format!("nothing in the pod's resources settles {}.", evidence.kind.as_str()))
    }
}

/// What a whisper is filled from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub at: Instant,
    pub sample: &'a Sample,
    pub growth: &'a Growth,
    pub window: &'a Window,
    /// Who had grown most when the node was short of memory last.
    pub growers: &'a [Neighbour],
    /// CPUs of the machine that are online; 0: unknown.
    pub cpus: u32,
}

macro_rules! list {
    ($($name:ident::$Kind:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every kind, in the order of [`SignalKind::ALL`].
        static KINDS: [&dyn Kind; SignalKind::ALL.len()] = [$(&$name::$Kind),*];
    };
}
crate::evidence::kinds!(list);

impl SignalKind {
    /// What this kind is.
    pub fn kind(self) -> &'static dyn Kind {
        KINDS[self as usize]
    }

    /// The agent says it.
    pub fn is_said(self) -> bool {
        self.kind().section().is_some()
    }

    /// The agent judges it by windows.
    pub fn is_windowed(self) -> bool {
        self.kind().section().is_some_and(Section::windowed)
    }

    /// The kinds that the agent says.
    pub fn said() -> impl Iterator<Item = SignalKind> {
        SignalKind::ALL.into_iter().filter(|kind| kind.is_said())
    }

    /// The kinds that the agent judges by windows.
    pub fn windowed() -> impl Iterator<Item = SignalKind> {
        SignalKind::ALL.into_iter().filter(|kind| kind.is_windowed())
    }
}

/// What to do about this signal. `node`: of the pod; a limit is dropped only where its CPUs are known.
pub fn recommend(evidence: &Evidence, node: NodeFacts) -> Recommendation {
    if evidence.source == Source::Reported {
        return Recommendation::none(
            "reported by others; only what the kernel of its node says is advised on.",
        );
    }
    if evidence.container.is_empty() && !evidence.kind.kind().of_pods() {
        return Recommendation::none("the numbers are about the pod as a whole, not about one container.");
    }
    evidence.kind.kind().advise(evidence, node)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// So many ns of so many seconds, percent.
fn percent(ns: u64, seconds: f64) -> f64 {
    ns as f64 / 1e9 / seconds * 100.0
}

/// The same of pressure, at most all of it. The kernel adds pressure up every 2 s or when it is read: a window may have some of the
/// time before it.
fn at_most_all(ns: u64, seconds: f64) -> f64 {
    percent(ns, seconds).min(100.0)
}

/// `words 80 %`, or the words alone where the number is not known.
fn with_percent(words: &str, percent: Option<f64>) -> String {
    match percent {
        Some(percent) => format!("{words} {percent:.0} %"),
        None => words.to_owned(),
    }
}

/// The parts that are known, each after what stands before it.
fn phrases(first: &str, parts: impl IntoIterator<Item = Option<String>>) -> String {
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() { String::new() } else { format!("{first}{}", known.join(", ")) }
}
