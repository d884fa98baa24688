//! From readings, which count up, to frames, which say what one interval came to. Numbers are rounded to a millionth, so that what
//! is written and read again is the same number.

use foldhash::HashMap;
use std::sync::Arc;

use super::frame::{Active, Birth, Blamed, Frame, Row, Said, Shown, Split};
use crate::attribution::{Attributed, Sample, Workload, WorkloadKind, quota_cores};
use crate::birth::UnderWay;
use crate::evidence::tidy;
use crate::kernel::counters::counters;
use crate::kernel::{CgroupStat, Counter, CpuCounters, Instant, Pressure};

/// Neighbours that a row names.
const BLAMED: usize = 5;

counters! {
    /// What is kept of the counters of the CPU probe.
    pub struct Kept from CpuCounters {
        pub run: u64,
        pub throttle: u64,
        pub neighbour: u64,
        pub own: u64,
        pub unattributed: u64,
        pub waited: u64,
        pub throttled_per_cpu: u64,
        pub throttled_wall: u64,
    }
}

/// What is kept of a workload from one reading to the next.
#[derive(Debug)]
struct Known {
    who: Arc<Workload>,
    name: Shown,
    cgroup: Shown,
    cpu: Option<Kept>,
    stat: CgroupStat,
    /// The neighbours' part of its waits that this reading added, ns.
    waited_ns: u64,
    /// The row of this reading.
    row: Option<usize>,
    culprits: HashMap<String, Culprit>,
    round: u64,
}

/// The time blamed on a neighbour so far, ns.
#[derive(Debug)]
struct Culprit {
    total: u64,
    round: u64,
}

/// Makes one frame a reading, from the second on.
#[derive(Debug, Default)]
pub struct Maker {
    known: HashMap<String, Known>,
    last: Instant,
    round: u64,
}

impl Maker {
    /// Takes a reading; `None` for the first, which is what the next is compared with.
    pub fn observe(&mut self, reading: &Attributed, active: &HashMap<String, Vec<Active>>) -> Option<Frame> {
        self.round += 1;
        let seconds = reading.at.mono_ns.saturating_sub(self.last.mono_ns) as f64 / 1e9;
        self.last = reading.at;
        let first = self.round == 1;
        let mut frame =
            Frame { at_unix_ns: reading.at.unix_ns, seconds, cpus: reading.cpus, ..Frame::default() };
        let probe = reading.samples.iter().any(|s| s.cpu.is_some());
        for sample in reading.samples.iter().filter(|sample| of_its_own(sample, probe)) {
            self.sample(sample, active, &mut frame);
        }
        for blame in &reading.blame {
            self.blame(blame.victim.cgroup.as_str(), &blame.culprit, blame.ns, &mut frame);
        }
        let round = self.round;
        self.known.retain(|_, known| {
            // Neighbours are not told of in every reading: one that is told of again is believed where it fits.
            known.culprits.retain(|_, culprit| round - culprit.round < 64);
            known.round == round
        });
        for row in &mut frame.workloads {
            row.blame.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
            row.blame.truncate(BLAMED);
        }
        frame.workloads.sort_by(|a, b| {
            b.lost_percent
                .total_cmp(&a.lost_percent)
                .then_with(|| b.usage_cores.unwrap_or(0.0).total_cmp(&a.usage_cores.unwrap_or(0.0)))
                .then_with(|| a.cgroup.cmp(&b.cgroup))
        });
        (!first && seconds > 0.0).then_some(frame)
    }

    fn sample(&mut self, sample: &Sample, active: &HashMap<String, Vec<Active>>, frame: &mut Frame) {
        let path = sample.who.cgroup.as_str();
        let cpu = sample.cpu.as_ref().map(Kept::from);
        let Some(known) = self.known.get_mut(path) else {
            // What it did before it was first seen is unknown: it has a row from the next reading on.
            let known = Known {
                name: Shown::name(&sample.who.label()),
                cgroup: Shown::name(path),
                who: sample.who.clone(),
                cpu,
                stat: sample.stat,
                waited_ns: 0,
                row: None,
                culprits: HashMap::default(),
                round: self.round,
            };
            self.known.insert(path.to_owned(), known);
            frame.idle += 1;
            return;
        };
        if !Arc::ptr_eq(&known.who, &sample.who) {
            known.name = Shown::name(&sample.who.label());
            known.who = sample.who.clone();
        }
        let grown = cpu.zip(known.cpu).and_then(|(now, then)| now.since(&then));
        let row = row(known, sample, grown, frame.seconds);
        (known.cpu, known.stat, known.round) = (cpu, sample.stat, self.round);
        known.waited_ns = grown.map_or(0, |grown| grown.neighbour);
        known.row = None;
        let whispers = active.get(path);
        let quiet = row.split.is_none_or(|s| s.total() == 0.0)
            && row.usage_cores.unwrap_or(0.0) == 0.0
            && row.lost_percent == 0.0;
        if quiet && whispers.is_none() {
            frame.idle += 1;
            return;
        }
        known.row = Some(frame.workloads.len());
        frame.workloads.push(Row { whispers: whispers.cloned().unwrap_or_default(), ..row });
    }

    /// Takes what is blamed on a neighbour so far. One not heard of before is taken to begin at zero if all of it fits in
    /// what the workload waited in this interval.
    fn blame(&mut self, victim: &str, culprit: &Arc<Workload>, total: u64, frame: &mut Frame) {
        let round = self.round;
        let Some(known) = self.known.get_mut(victim) else { return };
        let grown = match known.culprits.get_mut(culprit.cgroup.as_str()) {
            Some(then) => {
                let before = std::mem::replace(&mut then.total, total);
                then.round = round;
                // It began again at zero.
                if total < before { total } else { total - before }
            }
            None => {
                known.culprits.insert(culprit.cgroup.clone(), Culprit { total, round });
                if total <= known.waited_ns { total } else { 0 }
            }
        };
        let Some(row) = known.row.filter(|_| grown > 0).and_then(|row| frame.workloads.get_mut(row)) else {
            return;
        };
        let seconds = tidy(grown as f64 / 1e9);
        let (name, cgroup) = match self.known.get(culprit.cgroup.as_str()) {
            Some(known) => (known.name.clone(), known.cgroup.clone()),
            None => (Shown::name(&culprit.label()), Shown::name(&culprit.cgroup)),
        };
        row.blame.push(Blamed { name, cgroup, seconds });
    }
}

/// The numbers are its own: what others have below it is told of with them.
fn of_its_own(sample: &Sample, probe: bool) -> bool {
    match probe {
        true => sample.cpu.is_some(),
        false => {
            !matches!(sample.who.kind, WorkloadKind::Root) && !sample.who.contains_others()
                || sample.who.kind == WorkloadKind::Pod
        }
    }
}

fn row(known: &Known, sample: &Sample, grown: Option<Kept>, seconds: f64) -> Row {
    let s = |ns: u64| tidy(ns as f64 / 1e9);
    let percent = |ns: u64| tidy((ns as f64 / 1e9 / seconds.max(1e-9) * 100.0).min(100.0));
    let (now, then) = (&sample.stat, &known.stat);
    let since = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
    let used = since(now.cpu_usage, then.cpu_usage).or(grown.map(|g| g.run));
    // As long as its threads waited together, where the kernel cannot tell.
    let contended = grown.map(|g| if g.waited > 0 { g.waited.min(g.neighbour) } else { g.neighbour });
    let pressure = |now: Option<Pressure>, then: Option<Pressure>| {
        let own = !sample.who.contains_others();
        since(now.map(|p| p.some), then.map(|p| p.some)).filter(|_| own).map(percent)
    };
    let throttled_percent = match grown {
        Some(grown) => Some(percent(grown.throttled_wall)),
        // At most the sum over CPUs, and at most the periods that saw any.
        None => since(now.throttled, then.throttled).map(|ns| {
            let periods = since(now.throttled_periods, then.throttled_periods);
            let by_periods = periods.zip(since(now.periods, then.periods)).filter(|(_, all)| *all > 0);
            let bound = by_periods.map_or(100.0, |(some, all)| some as f64 / all as f64 * 100.0);
            tidy(percent(ns).min(bound))
        }),
    };
    let contended_percent = contended.map(percent);
    let memory_percent = pressure(now.memory_pressure, then.memory_pressure);
    let disk_percent = pressure(now.io_pressure, then.io_pressure);
    let or_zero = |percent: Option<f64>| percent.unwrap_or(0.0);
    // What waits for memory often waits for the disk behind it: the longer of the two.
    let blocked = or_zero(memory_percent).max(or_zero(disk_percent));
    let lost = or_zero(throttled_percent) + or_zero(contended_percent) + blocked;
    Row {
        name: known.name.clone(),
        cgroup: known.cgroup.clone(),
        lost_percent: tidy(lost.min(100.0)),
        usage_cores: used.map(|ns| tidy(ns as f64 / 1e9 / seconds.max(1e-9))),
        limit_cores: sample.quota_cores.or(quota_cores(now)).or(sample.who.cpu_limit).map(tidy),
        split: grown.map(|g| Split {
            run: s(g.run),
            throttle: s(g.throttle),
            neighbour: s(g.neighbour),
            own: s(g.own),
            unattributed: s(g.unattributed),
        }),
        throttled_percent,
        throttled_seconds: grown.map(|g| g.throttled_per_cpu).or(since(now.throttled, then.throttled)).map(s),
        contended_percent,
        memory_percent,
        disk_percent,
        blame: Vec::new(),
        whispers: Vec::new(),
    }
}

/// A birth that goes on, at this moment.
pub fn birth(of: &UnderWay, now: Instant) -> Birth {
    let seconds = now.mono_ns.saturating_sub(of.since_ns) as f64 / 1e9;
    Birth { name: Shown::name(&of.name), seconds: tidy(seconds), containers: of.containers }
}

/// A line, as it is said.
pub fn said(who: &Workload, at: Instant, transition: &str, text: &str) -> Said {
    Said {
        at_unix_ns: at.unix_ns,
        name: Shown::name(&who.label()),
        cgroup: Shown::name(&who.cgroup),
        severity: None,
        transition: Shown::new(transition),
        text: Shown::new(text),
    }
}
