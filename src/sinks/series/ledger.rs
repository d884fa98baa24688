//! What is published about each workload: its last sample, and what cumulative series need beyond it:
//! when they began, who the neighbours are, and a while of memory for workloads that are gone.

use foldhash::HashMap;
use std::sync::Arc;

use super::culprits::{Culprits, Moment, Rest, Share};
use crate::attribution::{Attributed, Sample, Workload, WorkloadKind};
use crate::kernel::{CgroupStat, CpuCounters, Instant, NetworkCounters};
use crate::signals::{Severity, SignalKind, Whisper};

/// A workload that is gone is published for this long, ns, so that a scrape a minute sees its end.
pub const KEEP_DEPARTED: u64 = super::culprits::FORGET_AFTER;

/// Workloads that are gone and still kept; beyond it the oldest is dropped and counted.
const MAX_DEPARTED: usize = 1024;

/// CPU time that no pause container comes to in its life, some 50 ms of it at its start, ns. A sandbox that has used this
/// much is one in which the pod's work is done, as gVisor's and Kata's are: it is published.
const SANDBOX_WORKS: u64 = 1_000_000_000;

/// The growth of neighbours' shares that decides who is named is forgotten by e in this time, s.
const RECENT: f64 = 30.0;

/// All numbers about one workload that its series are made of.
#[derive(Clone, Debug)]
pub struct Account {
    pub who: Arc<Workload>,
    pub cpu: Option<CpuCounters>,
    pub stat: CgroupStat,
    pub quota_cores: Option<f64>,
    pub network: Option<NetworkCounters>,
    /// The sample's moment, ns since the Unix epoch.
    pub at: u64,
    /// The workload was first seen; for one that was there before the agent, the agent's start.
    pub first_seen: u64,
    /// The CPU probe's counters began.
    pub probe_since: u64,
    /// The kernel's own counters began: the boot, for a cgroup that was there before the agent.
    pub stat_since: u64,
    /// Waits blamed on neighbours.
    pub neighbours: Vec<Share>,
    pub other_neighbours: Option<Rest>,
    /// Whispers that are or were active.
    pub whispers: Vec<(SignalKind, Severity, bool)>,
}

#[derive(Debug)]
struct Entry {
    account: Account,
    culprits: Culprits,
    /// The reading it was last in.
    round: u64,
    /// Monotonic time from which it was gone.
    departed: Option<u64>,
    /// Its last numbers were exported.
    exported: bool,
    /// If it is a sandbox, it is one that does work.
    works: bool,
}

/// The accounts of a node's workloads.
#[derive(Debug)]
pub struct Ledger {
    /// When the probes were loaded: no counter of theirs began before.
    started: Instant,
    last: Instant,
    round: u64,
    by_cgroup: HashMap<String, Entry>,
    /// Exports take what departed with them; without any, nothing waits for one.
    exporting: bool,
    /// Scrapes are to see what departed for a minute.
    scraped: bool,
    dropped: u64,
}

impl Ledger {
    /// `started`: when the probes were loaded. `exporting`: whether [`Ledger::export`] will be called; where nothing
    /// is exported, there are scrapes.
    pub fn new(started: Instant, exporting: bool) -> Self {
        Ledger {
            started,
            last: started,
            round: 0,
            by_cgroup: HashMap::default(),
            exporting,
            scraped: !exporting,
            dropped: 0,
        }
    }

    /// There are scrapes, beside the exports.
    pub fn scraped(self) -> Self {
        Ledger { scraped: true, ..self }
    }

    /// Takes a reading.
    pub fn observe(&mut self, reading: &Attributed) {
        self.round += 1;
        let dt = reading.at.mono_ns.saturating_sub(self.last.mono_ns) as f64 / 1e9;
        let now = Moment { mono: reading.at.mono_ns, before: self.last.unix_ns, decay: (-dt / RECENT).exp() };
        for sample in &reading.samples {
            self.sample(sample, reading.at, now);
        }
        for blame in &reading.blame {
            if let Some(victim) = self.by_cgroup.get_mut(blame.victim.cgroup.as_str()) {
                victim.culprits.record(&blame.culprit, blame.ns, now);
            }
        }
        self.close(now);
        self.last = reading.at;
    }

    fn sample(&mut self, sample: &Sample, at: Instant, now: Moment) {
        let entry = match self.by_cgroup.get_mut(sample.who.cgroup.as_str()) {
            Some(entry) => entry,
            None => {
                let entry = Entry::new(sample, self.round == 1, self.started, self.last, at);
                self.by_cgroup.entry(sample.who.cgroup.clone()).or_insert(entry)
            }
        };
        let account = &mut entry.account;
        // Counters that shrank are those of a new cgroup under the same path.
        if shrank(account.cpu.map(|c| c.run), sample.cpu.map(|c| c.run)) {
            account.probe_since = now.before;
        }
        if shrank(account.stat.cpu_usage, sample.stat.cpu_usage) {
            account.stat_since = now.before;
        }
        if !Arc::ptr_eq(&account.who, &sample.who) {
            account.who = sample.who.clone();
        }
        account.cpu = sample.cpu;
        account.stat = sample.stat;
        account.quota_cores = sample.quota_cores;
        account.network = sample.network;
        account.at = at.unix_ns;
        let used = sample.cpu.map(|cpu| cpu.run).max(sample.stat.cpu_usage);
        entry.works |= used >= Some(SANDBOX_WORKS);
        entry.round = self.round;
        entry.departed = sample.last.then_some(at.mono_ns);
        entry.exported = false;
    }

    /// Ends the reading: notes who is gone, and forgets those gone for long.
    fn close(&mut self, now: Moment) {
        let (round, exporting) = (self.round, self.exporting);
        let mut departed = 0;
        self.by_cgroup.retain(|_, entry| {
            entry.culprits.forget(now);
            if entry.round != round && entry.departed.is_none() {
                entry.departed = Some(now.mono);
            }
            let Some(since) = entry.departed else { return true };
            let keep = now.mono.saturating_sub(since) < KEEP_DEPARTED || (exporting && !entry.exported);
            let keep = keep && entry.is_published();
            departed += usize::from(keep);
            keep
        });
        if departed > MAX_DEPARTED {
            self.drop_departed(departed - MAX_DEPARTED);
        }
    }

    /// Drops the workloads that went first.
    fn drop_departed(&mut self, excess: usize) {
        let mut gone: Vec<_> =
            self.by_cgroup.iter().filter_map(|(path, e)| Some((e.departed?, path.clone()))).collect();
        gone.sort_unstable();
        for (_, path) in gone.into_iter().take(excess) {
            // A scrape is to see it for a minute, whatever was exported.
            let lost = self.by_cgroup.remove(&path).is_some_and(|e| self.scraped || !e.exported);
            self.dropped += u64::from(lost);
        }
    }

    /// Notes that a whisper began, changed or ended.
    pub fn whisper(&mut self, whisper: &Whisper) {
        let Some(entry) = self.by_cgroup.get_mut(whisper.who.cgroup.as_str()) else { return };
        entry.works = true;
        let all = &mut entry.account.whispers;
        for (_, _, active) in all.iter_mut().filter(|(signal, ..)| *signal == whisper.signal) {
            *active = false;
        }
        match all
            .iter_mut()
            .find(|(signal, severity, _)| (*signal, *severity) == (whisper.signal, whisper.severity))
        {
            Some((_, _, active)) => *active = whisper.active(),
            None => all.push((whisper.signal, whisper.severity, whisper.active())),
        }
    }

    /// The accounts an export has to carry: of all workloads alive, and of those gone since the last.
    pub fn export(&mut self, mut each: impl FnMut(&Account)) {
        for entry in self.by_cgroup.values_mut().filter(|entry| entry.is_published()) {
            if entry.departed.is_none() || !entry.exported {
                entry.take_neighbours();
                each(&entry.account);
                entry.exported = true;
            }
        }
    }

    /// A copy of all accounts: those that live before those that are gone, the newest first.
    pub fn accounts(&mut self) -> Vec<Account> {
        let mut all = Vec::with_capacity(self.by_cgroup.len());
        for entry in self.by_cgroup.values_mut().filter(|entry| entry.is_published()) {
            entry.take_neighbours();
            all.push(entry.account.clone());
        }
        all.sort_by_key(|account| std::cmp::Reverse((account.at, account.first_seen)));
        all
    }

    /// Workloads whose last numbers were never exported, or were on /metrics for less than a minute, because too many
    /// went at once. Cumulative.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Entry {
    fn new(sample: &Sample, was_there: bool, started: Instant, before: Instant, at: Instant) -> Self {
        // The boot: no cgroup counted anything before it.
        let boot = at.unix_ns.saturating_sub(at.mono_ns);
        let account = Account {
            who: sample.who.clone(),
            cpu: None,
            stat: CgroupStat::default(),
            quota_cores: None,
            network: None,
            at: at.unix_ns,
            first_seen: if was_there { started.unix_ns } else { before.unix_ns },
            probe_since: if was_there { started.unix_ns } else { before.unix_ns },
            stat_since: if was_there { boot } else { before.unix_ns },
            neighbours: Vec::new(),
            other_neighbours: None,
            whispers: Vec::new(),
        };
        let culprits = Culprits::default();
        Entry { account, culprits, round: 0, departed: None, exported: false, works: false }
    }

    /// Of sandboxes only those that do work are.
    fn is_published(&self) -> bool {
        self.works || self.account.who.kind != WorkloadKind::Sandbox
    }

    /// Brings the account's neighbours up to date: only when it is about to be published.
    fn take_neighbours(&mut self) {
        self.account.neighbours.clear();
        self.account.neighbours.extend_from_slice(self.culprits.named());
        self.account.other_neighbours = self.culprits.rest();
    }
}

/// The counter is known to be less than it was.
fn shrank(before: Option<u64>, after: Option<u64>) -> bool {
    matches!((before, after), (Some(before), Some(after)) if after < before)
}

#[cfg(test)]
mod tests;
