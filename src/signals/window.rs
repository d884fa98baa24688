//! From cumulative counters to what happened in the window: a small ring of samples per workload.
//!
//! The window is measured, not assumed: it reaches from the kept sample whose age is nearest to the
//! configured length to the newest one, however late samples came. A counter that shrank (the cgroup
//! was made anew) or a change of source starts the window anew: growth is then unknown, not guessed.

use std::sync::Arc;
use std::time::Duration;

use super::culprits::{Culprits, SLOTS};
use super::whisper::Neighbour;
use crate::attribution::{Sample, Workload};
use crate::kernel::counters::counters;
use crate::kernel::{
    Counter, CpuCounters, Dropped, DropsByReason, Instant, Log2Histogram, NetworkCounters, PacketCounters,
    Pressure,
};

counters! {
    /// What a window keeps of one sample: [`CpuCounters`] without the histograms, ns and counts.
    pub struct Scheduler from CpuCounters {
        pub run: u64,
        pub wait: u64,
        pub throttle: u64,
        pub neighbour: u64,
        pub own: u64,
        pub waited: u64,
        pub unattributed: u64,
        pub interrupted: u64,
        pub stolen: u64,
        pub stalls: u64,
        pub throttled_per_cpu: u64,
        pub throttled_wall: u64,
        pub throttled_full: u64,
    }
}

counters! {
    /// What held threads up beside CPUs: ns that they slept, ns that they reclaimed, and how often. `None` is unknown.
    pub struct Held {
        /// Asleep for I/O.
        pub disk: Option<u64>,
        /// Asleep for memory, and the parts of that in which pages were read back and in which memory.high held them up.
        pub memory: Option<u64>,
        pub refault: u64,
        pub high: u64,
        /// In direct reclaim for a limit, and for the node.
        pub own_reclaim: u64,
        pub node_reclaim: u64,
        pub refaults: Option<u64>,
        pub major_faults: Option<u64>,
    }
}

impl Held {
    fn of(sample: &Sample) -> Held {
        let cpu = sample.cpu.as_ref();
        let reclaim = sample.reclaim.unwrap_or_default();
        Held {
            disk: cpu.map(|c| c.disk),
            memory: cpu.and_then(|c| c.memory),
            refault: cpu.map_or(0, |c| c.refault),
            high: cpu.map_or(0, |c| c.high),
            own_reclaim: reclaim.own,
            node_reclaim: reclaim.node,
            refaults: sample.memory.and_then(|m| m.refaults),
            major_faults: sample.memory.and_then(|m| m.major_faults),
        }
    }

    fn is_nothing(&self) -> bool {
        let Held { disk, memory, own_reclaim, node_reclaim, refaults, major_faults, .. } = *self;
        let counted = [disk, memory, refaults, major_faults].into_iter().flatten().sum::<u64>();
        counted + own_reclaim + node_reclaim == 0
    }

    /// The growth since an earlier sample. What probes count began at zero with them; what files have was there before.
    fn grown(&self, then: &Held) -> Held {
        Held {
            refaults: self.refaults.since(&then.refaults).flatten(),
            major_faults: self.major_faults.since(&then.major_faults).flatten(),
            ..self.growth(then)
        }
    }
}

/// Writes what a window keeps of a sample: the scheduler's counters, and a row for each number of its [`crate::kernel::CgroupStat`], with its place
/// there.
macro_rules! kept {
    ($($(#[$doc:meta])* $name:ident: $number:ty = $place:ident,)+) => {
        /// The counters of one sample, or their growth. `None` is unknown.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            /// The CPU probe's word; without it only `cpu.stat` speaks.
            pub scheduler: Option<Scheduler>,
            $($(#[$doc])* pub $name: Option<$number>,)+
        }

        impl Counters {
            pub fn of(sample: &Sample) -> Self {
                Counters {
                    scheduler: sample.cpu.as_ref().map(Scheduler::from),
                    $($name: sample.stat.$place,)+
                }
            }

            /// Growth since an earlier sample; `None` if a counter shrank or the CPU probe came or went.
            pub fn since(&self, earlier: &Self) -> Option<Self> {
                let scheduler = match (&self.scheduler, &earlier.scheduler) {
                    (Some(now), Some(then)) => Some(now.since(then)?),
                    (None, None) => None,
                    _ => return None,
                };
                Some(Counters { scheduler, $($name: grown(self.$name, earlier.$name)?,)+ })
            }
        }
    };
}
kept! {
    /// CPU time used by the cgroup and all below it, ns.
    usage: u64 = cpu_usage,
    periods: u64 = periods,
    throttled_periods: u64 = throttled_periods,
    /// Throttled time per CPU as `cpu.stat` has it, ns.
    throttled: u64 = throttled,
    memory_pressure: Pressure = memory_pressure,
    io_pressure: Pressure = io_pressure,
}

/// One file that could not be read for once leaves that number unknown, not the whole window.
fn grown<C: Counter>(now: Option<C>, then: Option<C>) -> Option<Option<C>> {
    match (now, then) {
        (Some(now), Some(then)) => now.since(&then).map(Some),
        _ => Some(None),
    }
}

impl Counters {
    /// CPU time used, ns: the kernel's own count (a task that never leaves its CPU is in it), else
    /// the probe's.
    pub fn used(&self) -> Option<u64> {
        self.usage.or(self.scheduler.map(|s| s.run))
    }

    /// Throttled time per CPU, ns: the probe's (parents' quotas included), else `cpu.stat`'s.
    pub fn throttled_per_cpu(&self) -> Option<u64> {
        self.scheduler.map(|s| s.throttled_per_cpu).or(self.throttled)
    }
}

/// What happened in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Growth {
    /// The measured length of the window, seconds; greater than zero.
    pub seconds: f64,
    /// The length thresholds are a percentage of, seconds: the measured one, but while fewer samples
    /// than a window are known the configured one. So a rule fires as soon as the known part alone
    /// exceeds its share of a whole window, and never on a short glimpse.
    pub basis_seconds: f64,
    /// A whole window is known: only then can it be called quiet.
    pub complete: bool,
    pub counters: Counters,
    /// Packets of its own network; `None`: unknown, or it has none.
    pub packets: Option<PacketCounters>,
    /// What held its threads up beside CPUs.
    pub held: Held,
    /// The cores it can use at most: its limit, or the machine's CPUs where these are fewer. `None`: unknown.
    pub usable_cores: Option<f64>,
    /// What the kernel adds up over the cgroup and all below it is other workloads': [`Workload::contains_others`].
    pub of_others: bool,
    /// The slot of the sample the window begins with.
    pub(super) slot: usize,
}

/// The samples of one workload over one length of window.
#[derive(Debug, Default)]
pub struct Window {
    samples: [(Instant, Counters); SLOTS],
    /// The newest kept sample's slot, and how many are kept.
    newest: usize,
    kept: usize,
    /// The stall histogram at each slot; nothing until the first stall, which most never see.
    stalls: Option<Box<[Log2Histogram; SLOTS]>>,
    /// Packets at each slot; nothing until the first ones, which most never have: a container's are its pod's.
    network: Option<Box<[NetworkCounters; SLOTS]>>,
    /// What held threads up at each slot; nothing until something does.
    held: Option<Box<[Held; SLOTS]>>,
    culprits: Culprits,
    /// Neighbour wait since the newest kept sample, ns: what a newly seen culprit can have had at most.
    fresh_neighbour: u64,
}

impl Window {
    /// The kept samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &(Instant, Counters)> {
        self.slots().map(|slot| &self.samples[slot])
    }

    fn slots(&self) -> impl Iterator<Item = usize> + use<> {
        let (newest, kept) = (self.newest, self.kept);
        (0..kept).map(move |back| (newest + SLOTS + 1 + back - kept) % SLOTS)
    }

    /// Takes note of a sample's counters before its blame is given with [`Window::blame`].
    pub fn announce(&mut self, now: &Counters) {
        let fresh = (self.kept > 0).then(|| now.since(&self.samples[self.newest].1)).flatten();
        self.fresh_neighbour = fresh.and_then(|g| g.scheduler).map_or(0, |s| s.neighbour);
    }

    /// How long, in all (ns), the workload waited while `culprit` ran. False if it could not be kept.
    pub fn blame(&mut self, culprit: &Arc<Workload>, total: u64) -> bool {
        self.culprits.record(culprit, total, self.fresh_neighbour)
    }

    /// Takes a sample and says what happened in the window of this length that ends with it. `None`:
    /// it is the first, or the window starts anew with it.
    pub fn advance(
        &mut self,
        length: Duration,
        at: Instant,
        now: &Counters,
        sample: &Sample,
    ) -> Option<Growth> {
        let stalls = sample.cpu.as_ref().map(|c| &c.stall_histogram);
        if self.kept > 0 && now.since(&self.samples[self.newest].1).is_none() {
            self.kept = 0;
        }
        let growth = self.growth(length, at, now).map(|growth| Growth {
            packets: self.packets(growth.slot, sample.network.as_ref()),
            held: Held::of(sample)
                .grown(&self.held.as_ref().map_or_else(Held::default, |kept| kept[growth.slot])),
            ..growth
        });
        // Two fewer intervals than slots: the kept samples then always span more than one window.
        let spacing = length / (SLOTS as u32 - 2);
        let age = at.mono_ns.saturating_sub(self.samples[self.newest].0.mono_ns);
        if self.kept == 0 || age >= nanos(spacing) {
            self.keep(at, now, stalls, sample.network.as_ref());
            self.keep_held(Held::of(sample));
        }
        growth
    }

    fn growth(&self, length: Duration, at: Instant, now: &Counters) -> Option<Growth> {
        let age = |slot: usize| at.mono_ns.saturating_sub(self.samples[slot].0.mono_ns);
        let slot = self.slots().filter(|s| age(*s) > 0).min_by_key(|s| age(*s).abs_diff(nanos(length)))?;
        let oldest = self.slots().next()?;
        let seconds = Duration::from_nanos(age(slot)).as_secs_f64();
        // Nearest to the length may be a little short of it: whole all the same if more is known.
        let complete = age(oldest) >= nanos(length);
        let basis_seconds = if complete { seconds } else { seconds.max(length.as_secs_f64()) };
        let counters = now.since(&self.samples[slot].1)?;
        Some(Growth {
            seconds,
            basis_seconds,
            complete,
            counters,
            packets: None,
            held: Held::default(),
            usable_cores: None,
            of_others: false,
            slot,
        })
    }

    fn keep(
        &mut self,
        at: Instant,
        now: &Counters,
        stalls: Option<&Log2Histogram>,
        network: Option<&NetworkCounters>,
    ) {
        if self.kept > 0 {
            self.newest = (self.newest + 1) % SLOTS;
        }
        self.kept = (self.kept + 1).min(SLOTS);
        self.samples[self.newest] = (at, *now);
        self.culprits.mark(self.newest);
        match (stalls, &mut self.stalls) {
            (Some(histogram), Some(kept)) => kept[self.newest] = *histogram,
            // The slots before had none: they were kept before the first stall.
            (Some(histogram), none) if histogram.count() > 0 => {
                none.insert(Box::default())[self.newest] = *histogram;
            }
            _ => {}
        }
        match (network, &mut self.network) {
            (Some(network), Some(kept)) => kept[self.newest] = *network,
            (Some(network), none) => none.insert(Box::default())[self.newest] = *network,
            (None, _) => {}
        }
    }

    fn keep_held(&mut self, held: Held) {
        match &mut self.held {
            Some(kept) => kept[self.newest] = held,
            // The slots before had nothing.
            none if !held.is_nothing() => none.insert(Box::default())[self.newest] = held,
            _ => {}
        }
    }

    /// The packets dropped in the window, the most for one reason first, given those dropped by now.
    pub fn drops(&self, growth: &Growth, now: &DropsByReason) -> Vec<Dropped> {
        self.network.as_ref().map_or_else(Vec::new, |kept| now.since(&kept[growth.slot].drops))
    }

    /// Packets since a slot. (What is not known then is not now.)
    fn packets(&self, slot: usize, now: Option<&NetworkCounters>) -> Option<PacketCounters> {
        let then = self.network.as_ref()?[slot].packets?;
        now?.packets?.since(&then)
    }

    /// The stalls of the window by length, given the newest histogram.
    pub fn stalls(&self, growth: &Growth, now: &Log2Histogram) -> Log2Histogram {
        self.stalls.as_ref().map_or(*now, |kept| now.growth(&kept[growth.slot]))
    }

    /// Fills in those blamed most in the window, the greatest share first.
    pub fn top_culprits(&self, growth: &Growth, out: &mut Vec<Neighbour>) {
        self.culprits.top(growth.slot, growth.seconds, out);
    }
}

/// A duration as the kernel counts; one beyond 584 years is that long.
pub fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
