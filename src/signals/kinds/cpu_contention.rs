//! `cpu_contention`: kept off the CPU by its neighbours. Judged by time in which at least one thread waited, and never
//! more than the workload could have used: fifty threads that queue for one CPU lost one CPU.

use std::fmt::Write;

use super::{Kind, Seen, cpu, with_percent};
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::evidence::{SignalEvidence, tidy};
use crate::plain::Printable;
use crate::signals::hysteresis::Judgement;
use crate::signals::rules::{Key, Rule, Section, WINDOWED};
use crate::signals::whisper::Whisper;
use crate::signals::window::{Growth, Scheduler};

#[derive(Debug)]
pub struct CpuContention;

const MIN_WAIT: Key = Key::duration(
    "min_wait",
    0.5,
    "Less of that time in the window (summed over CPUs) is not said. 0s to 1h.",
);
const MIN_SHARE: Key = Key::percent(
    "min_share",
    10.0,
    "Nor is a smaller share (percent) of the CPU it could have used: taken of (used + taken), within its limit.",
);

static SECTION: Section = Section {
    help: "Kept off the CPU by its neighbours. Percentages: time in which at least one of its threads waited while\n\
           others ran, of the window.",
    common: &WINDOWED,
    own: &[MIN_WAIT, MIN_SHARE],
};

/// What uses so much of what it can use is kept off by its limit, or by the size of the machine.
const ALL_OF_IT: f64 = 0.95;

impl Kind for CpuContention {
    fn brief(&self) -> &'static str {
        "Other workloads kept it off the CPU."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// `None` without the CPU probe: only the scheduler knows who waited for whom.
    fn judge(&self, rule: &Rule, growth: &Growth) -> Option<Judgement> {
        let waited = waited(&growth.counters.scheduler?);
        let percent = share(waited, growth.seconds) * growth.seconds / growth.basis_seconds * 100.0;
        let lost = lost_cores(growth)?;
        let used = used_cores(growth);
        let share = if lost > 0.0 { lost / (used + lost) * 100.0 } else { 0.0 };
        let all_of_it = growth.usable_cores.is_some_and(|usable| used >= usable * ALL_OF_IT);
        let enough = waited >= rule.nanos(&MIN_WAIT) && share >= rule.get(&MIN_SHARE) && !all_of_it;
        Some(Judgement::of(rule, percent, enough, growth.complete))
    }

    fn fill(&self, whisper: &mut Whisper, seen: &Seen<'_>) {
        cpu::fill(whisper, seen);
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        percent(numbers).unwrap_or_default()
    }

    /// `kept off the CPU 62 %`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        with_percent("kept off the CPU", percent(numbers))
    }

    /// ", 2.5 threads at a time, by default/noisy/burner (55 %), …: used 0.38 cores, would have used at most 1.00, …"
    fn details(&self, whisper: &Whisper) -> String {
        let e = &whisper.evidence;
        let mut text = String::new();
        let threads = e.contended().and_then(|waited| waited.threads);
        // Writing to a String cannot fail.
        let _ = threads.filter(|n| *n >= 1.05).map(|n| write!(text, ", {n:.1} threads at a time,"));
        for (i, neighbour) in whisper.neighbours.iter().enumerate() {
            let before = if i == 0 { " by " } else { ", " };
            let _ =
                write!(text, "{before}{} ({:.0} %)", Printable(&neighbour.who.label()), neighbour.percent);
        }
        text + &cpu::cores(e.cpu(), self.at_most(e))
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        Some(format!("{who} was ready to run but waited for neighbours for {:.0} %", percent(numbers)?))
    }

    /// What its neighbours took, as its limit did not: the evidence's demand is what that refused.
    fn at_most(&self, numbers: &SignalEvidence) -> Option<f64> {
        let cpu = numbers.cpu();
        let used = cpu.usage_cores?;
        if let Some(lost) = cpu.lost_cores {
            return Some(used + lost);
        }
        // An agent before 0.2 does not say what was lost.
        let window = numbers.window_seconds.filter(|w| *w > 0.0)?;
        let wanted = used + cpu.contended_seconds.or(cpu.wait_neighbour_seconds)? / window;
        Some(cpu.limit_cores.map_or(wanted, |limit| wanted.min(limit).max(used)))
    }

    fn blames(&self) -> bool {
        true
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        advice::cpu::contended(evidence, node)
    }
}

/// Time in which at least one thread waited while others ran, percent of the window.
fn percent(numbers: &SignalEvidence) -> Option<f64> {
    Some(tidy(numbers.contended()?.percent))
}

/// Time in which at least one thread waited on a CPU on which a neighbour ran, summed over CPUs, ns. Where the kernel
/// cannot tell, as long as its threads waited together.
fn waited(s: &Scheduler) -> u64 {
    // A wait for another cgroup of its own is in the one and not in the other.
    per_cpu(s).unwrap_or(s.neighbour)
}

/// The same; `None` where the kernel cannot tell.
fn per_cpu(s: &Scheduler) -> Option<u64> {
    (s.waited > 0 || s.neighbour == 0).then_some(s.waited.min(s.neighbour))
}

/// The part of the time in which it waited: on several CPUs at once it waits no longer.
fn share(waited: u64, seconds: f64) -> f64 {
    (waited as f64 / 1e9 / seconds).min(1.0)
}

fn used_cores(growth: &Growth) -> f64 {
    growth.counters.used().unwrap_or(0) as f64 / 1e9 / growth.seconds
}

/// The cores that neighbours took from it, at most: where a thread waited it could have run, as far as limit and CPUs
/// allow. `None` without the CPU probe.
pub fn lost_cores(growth: &Growth) -> Option<f64> {
    let waited = waited(&growth.counters.scheduler?) as f64 / 1e9 / growth.seconds;
    let left = growth.usable_cores.map_or(f64::INFINITY, |usable| (usable - used_cores(growth)).max(0.0));
    Some(waited.min(left))
}

/// What the evidence says: [`CpuCounters::waited`](crate::kernel::CpuCounters::waited) in seconds, where the kernel
/// can tell.
pub fn contended_seconds(growth: &Growth) -> Option<f64> {
    Some(per_cpu(&growth.counters.scheduler?)? as f64 / 1e9)
}

/// What part of the neighbours' wait of all threads together is time in which the workload waited: by so much the
/// shares of the neighbours are less than what they kept its threads waiting together.
pub fn of_the_time(growth: &Growth) -> f64 {
    let Some(s) = growth.counters.scheduler.filter(|s| s.neighbour > 0) else { return 1.0 };
    share(waited(&s), growth.seconds) / (s.neighbour as f64 / 1e9 / growth.seconds)
}
