//! What the probe says, laid beside what the trace comes to.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scene::{Scene, Seen, cpus, play};
use super::terms::{Exactly, Terms};
use crate::bed::emulated;
use crate::kernel::cpu::{Moment, options, seconds};
use kernel_gossip::kernel::CpuCounters;
use kernel_gossip::kernel::Hook;

/// A figure may differ by a hundredth, or by this where that is more, ns.
const LEAST: u64 = 2_000_000;
/// Of a stall before 6.6: the kernel's clock leaves out interrupts and slows with the CPU's frequency.
const OLD_CLOCK: f64 = 0.15;

/// One figure, ns.
#[derive(Clone, Debug)]
pub struct Line {
    pub what: String,
    pub probe: u64,
    pub reference: u64,
    /// By how much it may be less, and more.
    pub less: u64,
    pub more: u64,
}

impl Line {
    pub fn holds(&self) -> bool {
        self.probe + self.less >= self.reference && self.probe <= self.reference + self.more
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let s = |ns: u64| ns as f64 / 1e9;
        let wrong = if self.holds() { "" } else { "  <-- WRONG" };
        write!(
            f,
            "{:<34} {:>10.4} {:>10.4} {:>+10.4}  (-{:.4} +{:.4}){wrong}",
            self.what,
            s(self.probe),
            s(self.reference),
            self.probe as f64 / 1e9 - s(self.reference),
            s(self.less),
            s(self.more)
        )
    }
}

/// Every figure of every cgroup of a scene.
pub fn lines(seen: &Seen) -> Vec<Line> {
    let mut lines = Vec::new();
    for (i, (_, id)) in seen.names.iter().enumerate() {
        let probe = seen.probe.get(id).copied().unwrap_or_default();
        let terms = seen.reference.of(*id);
        if terms.run == 0 && probe.run == 0 {
            continue; // nothing ran right in it
        }
        of_group(&mut lines, &format!("group {i}"), seen, &probe, &terms);
        let mut shares: HashMap<u64, (u64, u64)> = HashMap::new();
        for blame in seen.blame.iter().filter(|blame| blame.victim.id == *id) {
            shares.entry(blame.culprit.id).or_default().0 += blame.ns;
        }
        for (culprit, ns) in &terms.shares {
            shares.entry(*culprit).or_default().1 = *ns;
        }
        let mut shares: Vec<_> = shares.into_iter().collect();
        shares.sort();
        for (culprit, (probe, reference)) in shares {
            let of = seen.names.iter().position(|(_, id)| *id == culprit);
            let who = of.map_or_else(|| format!("cgroup {culprit}"), |of| format!("group {of}"));
            let near = (reference / 50).max(LEAST);
            let allowed = near + split_slack(&terms) + old_clock(seen, terms.throttle);
            let what = format!("group {i} kept off by {who}");
            // What has no name any more is counted as that, of all victims together: it is more for who waits more.
            let all: u64 = seen.names.iter().map(|(_, id)| seen.reference.of(*id).neighbour).sum();
            let unnamed = seen.losses.blame_unnamed_ns as f64 / all.max(1) as f64;
            let less = allowed + (2.0 * unnamed * reference as f64) as u64;
            // Within a spell of several owners a small part is known to a thousandth of the whole wait.
            let more = allowed + terms.neighbour / 1000;
            lines.push(Line { what, probe, reference, less: less + terms.neighbour / 1000, more });
        }
    }
    lines
}

fn of_group(lines: &mut Vec<Line>, name: &str, seen: &Seen, probe: &CpuCounters, terms: &Terms) {
    let slack = &terms.slack;
    let mut line = |what: &str, probe: u64, reference: u64, less: u64, more: u64| {
        lines.push(Line { what: format!("{name} {what}"), probe, reference, less, more });
    };
    let near = |reference: u64| (reference / 100).max(LEAST);
    let run = near(terms.run) + slack.run;
    line("run", probe.run, terms.run, run, run);
    let wait = near(terms.wait) + slack.wait;
    line("wait", probe.wait, terms.wait, wait, wait);
    if seen.stalls == Exactly::Never {
        return;
    }
    let part = |ns: u64| near(ns) + split_slack(terms) + old_clock(seen, terms.throttle);
    line(
        "throttle",
        probe.throttle,
        terms.throttle,
        part(terms.throttle),
        part(terms.throttle) + terms.spent,
    );
    line("neighbour", probe.neighbour, terms.neighbour, part(terms.neighbour), part(terms.neighbour));
    line("own", probe.own, terms.own, part(terms.own), part(terms.own));
    // Of the wait: a hundredth of it may have no name.
    let rest = part(terms.wait);
    line("unattributed", probe.unattributed, terms.unattributed, rest + terms.spent, rest);
    let stall = |ns: u64| near(ns) + slack.stall + old_clock(seen, ns);
    let (sum, wall, full) = (terms.throttled_per_cpu, terms.throttled_wall, terms.throttled_full);
    line("throttled, per CPU", probe.throttled_per_cpu, sum, stall(sum), stall(sum));
    if options(Hook::TpBtf).atomics {
        line("throttled, wall", probe.throttled_wall, wall, stall(wall), stall(wall));
        let allowed = stall(full) + slack.run;
        // Whether any CPU runs it is not known of the first stall: none is taken to, and nothing of it is told if it began as
        // the task woke.
        let allowed = allowed + terms.first_stall;
        line("throttled, full", probe.throttled_full, full, allowed, allowed);
    }
}

/// By how much the parts of a wait may be other than they were.
fn split_slack(terms: &Terms) -> u64 {
    terms.slack.split + terms.slack.wait + terms.slack.stall
}

fn old_clock(seen: &Seen, stalled: u64) -> u64 {
    if seen.stalls == Exactly::Clocks { 0 } else { (stalled as f64 * OLD_CLOCK) as u64 }
}

/// Scenes are for real CPUs: on an emulated one a program takes a second to start, and with the kprobes that tell of throttling
/// before 6.6 no scene comes to its end in time. `KG_SCENES=1` plays them all the same.
pub fn too_slow() -> bool {
    let slow = emulated() && std::env::var_os("KG_SCENES").is_none();
    if slow {
        println!("an emulated CPU: no scenes (KG_SCENES=1 plays them)");
    }
    slow
}

/// Plays a scene and compares. Of a wait that began and ended by switches that the kernel did not tell of nobody knows: where
/// figures are wrong and there were such, it is played again, twice at most.
pub fn is_right(what: &str, scene: &Scene) -> bool {
    if too_slow() {
        return true;
    }
    for _ in 0..3 {
        let seen = play(scene);
        if catch_unwind(AssertUnwindSafe(|| assert_right(what, &seen))).is_ok() {
            return true;
        }
        if seen.reference.gaps == 0 {
            return false; // what is wrong has been printed
        }
    }
    false
}

/// # Panics
/// When a figure is wrong, with all of them.
#[track_caller]
pub fn assert_right(what: &str, seen: &Seen) {
    let lines = lines(seen);
    let figures = &seen.reference;
    println!(
        "{what}: {} switches not told of, {} waits begun otherwise\n{:<34} {:>10} {:>10} {:>10}  (allowed)",
        figures.gaps, figures.odd, "s", "probe", "reference", "difference"
    );
    for line in &lines {
        println!("{line}");
    }
    println!("{:?}", seen.losses);
    reference_is_right(seen);
    assert_steady(what, seen);
    let wrong: Vec<_> = lines.iter().filter(|line| !line.holds()).map(ToString::to_string).collect();
    assert!(
        wrong.is_empty(),
        "{what}: {} of {} figures are wrong:\n{}",
        wrong.len(),
        lines.len(),
        wrong.join("\n")
    );
}

/// Nothing that is counted becomes less, and nothing runs for longer than time passed on every CPU.
#[track_caller]
fn assert_steady(what: &str, seen: &Seen) {
    let before_and_after = seen.meanwhile.iter().zip(seen.meanwhile.iter().skip(1));
    for (before, after) in before_and_after {
        let passed = after.since(before);
        for (name, id) in &seen.names {
            let counters = |moment: &Moment| moment.of.get(id).copied().unwrap_or_default();
            let (a, b) = (counters(before), counters(after));
            for (figure, a, b) in [
                ("run", a.run, b.run),
                ("wait", a.wait, b.wait),
                ("throttle", a.throttle, b.throttle),
                ("neighbour", a.neighbour, b.neighbour),
                ("own", a.own, b.own),
                ("throttled, per CPU", a.throttled_per_cpu, b.throttled_per_cpu),
                ("throttled, wall", a.throttled_wall, b.throttled_wall),
                ("throttled, full", a.throttled_full, b.throttled_full),
                ("switches", a.switches, b.switches),
            ] {
                assert!(b >= a, "{what}: {figure} of {name} was {a} and is {b}");
            }
            let most =
                passed.end() * cpus() as f64 * 1.01 + 0.002 + seconds(seen.reference.of(*id).slack.run);
            let ran = seconds(b.run - a.run);
            assert!(ran <= most, "{what}: {name} ran {ran:.4} s in {:.4} s on {} CPUs", passed.end(), cpus());
        }
    }
}

/// The reference against the kernel's own books: throttled time by a group's own limit, where there is no other above it.
#[track_caller]
fn reference_is_right(seen: &Seen) {
    for (name, id) in &seen.names {
        let terms = seen.reference.of(*id);
        let books = seen.books[id];
        let below = name.matches('/').count() > 1;
        let above = seen.names.iter().any(|(other, _)| other.starts_with(&format!("{name}/")));
        if terms.run == 0 || below || above || seen.stalls == Exactly::Never {
            continue;
        }
        let allowed = (books / 100).max(LEAST) + terms.slack.stall;
        assert!(
            // Before 6.6 the books go on while nothing waits.
            terms.throttled_per_cpu <= books + allowed
                && (seen.stalls != Exactly::Clocks || books <= terms.throttled_per_cpu + allowed),
            "the reference is wrong: {name} was throttled for {} ns by the trace, {books} by cpu.stat",
            terms.throttled_per_cpu
        );
    }
    assert!(
        seen.reference.odd <= seen.reference.gaps,
        "the trace and the kernel do not agree when waits begin"
    );
}
