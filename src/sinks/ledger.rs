//! What is published about each workload: its last sample, and what cumulative series need beyond it:
//! when they began, who the neighbours are, and a while of memory for workloads that are gone.

use foldhash::HashMap;
use std::sync::Arc;

use super::culprits::{Culprits, Moment, Rest, Share};
use crate::attribution::{Attributed, Sample, Workload, WorkloadKind};
use crate::kernel::{CgroupStat, CpuCounters, Instant};
use crate::signals::{Severity, SignalType, Whisper};

/// A workload that is gone is published for this long, ns, so that a scrape a minute sees its end.
pub const KEEP_DEPARTED: u64 = 60_000_000_000;

/// Workloads that are gone and still kept; beyond it the oldest is dropped and counted.
const MAX_DEPARTED: usize = 1024;

/// The growth of neighbours' shares that decides who is named is forgotten by e in this time, s.
const RECENT: f64 = 30.0;

/// All numbers about one workload that its series are made of.
#[derive(Clone, Debug)]
pub struct Account {
    pub who: Arc<Workload>,
    pub cpu: Option<CpuCounters>,
    pub stat: CgroupStat,
    pub quota_cores: Option<f64>,
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
    pub whispers: Vec<(SignalType, Severity, bool)>,
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
    dropped: u64,
}

impl Ledger {
    /// `started`: when the probes were loaded. `exporting`: whether [`Ledger::export`] will be called.
    pub fn new(started: Instant, exporting: bool) -> Self {
        Ledger { started, last: started, round: 0, by_cgroup: HashMap::default(), exporting, dropped: 0 }
    }

    /// Takes a reading.
    pub fn observe(&mut self, reading: &Attributed) {
        self.round += 1;
        let dt = reading.at.mono_ns.saturating_sub(self.last.mono_ns) as f64 / 1e9;
        let now = Moment { mono: reading.at.mono_ns, before: self.last.unix_ns, decay: (-dt / RECENT).exp() };
        for sample in reading.samples.iter().filter(|s| s.who.kind != WorkloadKind::Sandbox) {
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
        account.at = at.unix_ns;
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
            let lost = self.by_cgroup.remove(&path).is_some_and(|e| self.exporting && !e.exported);
            self.dropped += u64::from(lost);
        }
    }

    /// Notes that a whisper began, changed or ended.
    pub fn whisper(&mut self, whisper: &Whisper) {
        let Some(entry) = self.by_cgroup.get_mut(whisper.who.cgroup.as_str()) else { return };
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
        for entry in self.by_cgroup.values_mut() {
            if entry.departed.is_none() || !entry.exported {
                entry.take_neighbours();
                each(&entry.account);
                entry.exported = true;
            }
        }
    }

    /// A copy of all accounts, newest workload first.
    pub fn accounts(&mut self) -> Vec<Account> {
        let mut all = Vec::with_capacity(self.by_cgroup.len());
        for entry in self.by_cgroup.values_mut() {
            entry.take_neighbours();
            all.push(entry.account.clone());
        }
        all.sort_by_key(|account| std::cmp::Reverse((account.first_seen, account.at)));
        all
    }

    /// Workloads whose last numbers were never exported because too many went at once. Cumulative.
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
            at: at.unix_ns,
            first_seen: if was_there { started.unix_ns } else { before.unix_ns },
            probe_since: if was_there { started.unix_ns } else { before.unix_ns },
            stat_since: if was_there { boot } else { before.unix_ns },
            neighbours: Vec::new(),
            other_neighbours: None,
            whispers: Vec::new(),
        };
        Entry { account, culprits: Culprits::default(), round: 0, departed: None, exported: false }
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
mod tests {
    use super::super::testdata::{container, moment, reading, second, whisper};
    use super::*;
    use crate::signals::Transition;

    fn exported(ledger: &mut Ledger) -> Vec<String> {
        let mut pods = Vec::new();
        ledger.export(|account| pods.extend(account.who.pod.clone()));
        pods.sort_unstable();
        pods
    }

    fn only(ledger: &mut Ledger) -> Account {
        let mut all = ledger.accounts();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn counters_begin_when_they_can_have_begun() {
        let (old, new) = (container("shop", "old", "app"), container("shop", "new", "app"));
        let mut ledger = Ledger::new(moment(100), true);
        ledger.observe(&reading(std::slice::from_ref(&old), 110));
        ledger.observe(&reading(&[old, new], 120));
        let all = ledger.accounts();
        let began = |pod: &str| {
            let account = all.iter().find(|a| a.who.pod.as_deref() == Some(pod)).expect("an account");
            (account.probe_since, account.stat_since)
        };
        assert_eq!(began("old"), (moment(100).unix_ns, moment(0).unix_ns), "agent's start, boot");
        assert_eq!(began("new"), (moment(110).unix_ns, moment(110).unix_ns), "the reading before");
        assert_eq!(all[0].who.pod.as_deref(), Some("new"), "newest first");
    }

    #[test]
    fn a_counter_that_shrank_began_anew() {
        let who = [container("shop", "web", "app")];
        let mut ledger = Ledger::new(moment(100), true);
        ledger.observe(&reading(&who, 200));
        let mut restarted = reading(&who, 5);
        restarted.at = moment(210);
        ledger.observe(&restarted);
        let account = only(&mut ledger);
        assert_eq!(account.probe_since, moment(200).unix_ns);
        assert_eq!(account.stat_since, moment(200).unix_ns);
        assert_eq!(account.first_seen, moment(100).unix_ns);
    }

    #[test]
    fn a_workload_that_is_gone_is_exported_once_more_and_kept_for_a_minute() {
        let all = [container("shop", "a", "app"), container("shop", "b", "app")];
        let mut ledger = Ledger::new(moment(0), true);
        ledger.observe(&reading(&all, 10));
        assert_eq!(exported(&mut ledger), ["a", "b"]);
        let mut last = reading(&all, 11);
        last.samples[1].last = true;
        ledger.observe(&last);
        assert_eq!(exported(&mut ledger), ["a", "b"], "its last numbers are new");
        ledger.observe(&reading(&all[..1], 12));
        assert_eq!(exported(&mut ledger), ["a"]);
        assert_eq!(ledger.accounts().len(), 2);
        ledger.observe(&reading(&all[..1], 11 + KEEP_DEPARTED / second(1)));
        assert_eq!(ledger.accounts().len(), 1);
    }

    #[test]
    fn what_was_never_exported_is_kept_until_it_is_or_counted() {
        let all: Vec<_> = (0..MAX_DEPARTED + 5).map(|i| container("jobs", &format!("j{i}"), "run")).collect();
        let mut ledger = Ledger::new(moment(0), true);
        ledger.observe(&reading(&all, 10));
        ledger.observe(&reading(&[], 1000));
        assert_eq!(ledger.dropped(), 5);
        ledger.observe(&reading(&[], 2000));
        assert_eq!(exported(&mut ledger).len(), MAX_DEPARTED);
        ledger.observe(&reading(&[], 3000));
        assert_eq!(ledger.accounts().len(), 0);
        // Without an exporter nothing waits for one, and nothing is lost.
        let mut ledger = Ledger::new(moment(0), false);
        ledger.observe(&reading(&all, 10));
        ledger.observe(&reading(&[], 1000));
        assert_eq!((ledger.accounts().len(), ledger.dropped()), (MAX_DEPARTED, 0));
        ledger.observe(&reading(&[], 2000));
        assert!(ledger.accounts().is_empty());
    }

    #[test]
    fn one_severity_of_a_signal_is_active_at_a_time() {
        let who = container("shop", "web", "app");
        let mut ledger = Ledger::new(moment(0), true);
        ledger.observe(&reading(std::slice::from_ref(&who), 10));
        let mut say = |severity, transition| {
            let whisper = whisper(&who, SignalType::CpuThrottle, transition, 10);
            ledger.whisper(&Whisper { severity, ..whisper });
            only(&mut ledger).whispers
        };
        let (warning, critical) = (Severity::Warning, Severity::Critical);
        let throttle = SignalType::CpuThrottle;
        assert_eq!(say(warning, Transition::Started), [(throttle, warning, true)]);
        assert_eq!(
            say(critical, Transition::Changed),
            [(throttle, warning, false), (throttle, critical, true)]
        );
        assert_eq!(
            say(critical, Transition::Resolved),
            [(throttle, warning, false), (throttle, critical, false)]
        );
    }
}
