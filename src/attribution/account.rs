//! The sums: cumulative numbers of cgroups made into cumulative numbers of workloads, that never go
//! down though cgroups come and go beneath them.

use crate::kernel::{CgroupStat, CpuCounters, Hierarchy, Log2Histogram, Pressure};

use super::tree::Hierarchies;

/// What one cgroup was last read to have; what of it is in its workload's sum.
#[derive(Debug, Default)]
pub struct CgroupAccount {
    last: Option<Box<CpuCounters>>,
    /// The last reading that had it, and its place there.
    place: (u64, usize),
    /// It is being forgotten.
    pub removed: bool,
}

impl CgroupAccount {
    /// Where the cgroup is in this reading already; else it is at `place` from now on.
    pub fn place(&mut self, reading: u64, place: usize) -> Option<usize> {
        let (before, at) = self.place;
        if before == reading {
            return Some(at);
        }
        self.place = (reading, place);
        None
    }

    /// The cgroup now has `now`: brings its workload's sums up to date.
    pub fn book(&mut self, now: &CpuCounters, to: &mut Account) {
        let last = self.last.get_or_insert_default();
        // It was dropped from the kernel's table and began again at zero: what it had stays in the sum.
        let began_again =
            now.run < last.run || now.switches < last.switches || now.stall_sum < last.stall_sum;
        if began_again {
            **last = CpuCounters::default();
        }
        to.cpu_seen = true;
        each(&mut to.cpu, last, |sum, last| *sum = sum.wrapping_sub(last));
        each(&mut to.cpu, now, |sum, now| *sum = sum.wrapping_add(now));
        to.stalled(
            now.stall_wall.saturating_sub(last.stall_wall),
            now.stall_full.saturating_sub(last.stall_full),
        );
        **last = *now;
    }
}

/// Adds the counters of another slot of the same cgroup.
pub fn add_slot(a: &mut CpuCounters, b: &CpuCounters) {
    each(a, b, |a, b| *a += b);
    a.stall_wall += b.stall_wall;
    a.stall_full += b.stall_full;
}

/// Applies `f` to every counter that may be added up over cgroups.
fn each(a: &mut CpuCounters, b: &CpuCounters, f: impl Fn(&mut u64, u64)) {
    // Taken apart by name, so that a counter that is added cannot be forgotten here.
    let CpuCounters {
        run,
        wait,
        throttle,
        neighbour,
        own,
        unattributed,
        stalls,
        stall_sum,
        // Times by the clock on the wall: see `Account::stalled`.
        stall_wall: _,
        stall_full: _,
        switches,
        wait_histogram,
        stall_histogram,
    } = b;
    f(&mut a.run, *run);
    f(&mut a.wait, *wait);
    f(&mut a.throttle, *throttle);
    f(&mut a.neighbour, *neighbour);
    f(&mut a.own, *own);
    f(&mut a.unattributed, *unattributed);
    f(&mut a.stalls, *stalls);
    f(&mut a.stall_sum, *stall_sum);
    f(&mut a.switches, *switches);
    let buckets = |a: &mut Log2Histogram, b: &Log2Histogram| {
        a.counts.iter_mut().zip(b.counts).for_each(|(a, b)| f(a, b));
    };
    buckets(&mut a.wait_histogram, wait_histogram);
    buckets(&mut a.stall_histogram, stall_histogram);
}

/// What one workload has.
#[derive(Debug, Default)]
pub struct Account {
    /// Sum over its cgroups, the dead included.
    pub cpu: CpuCounters,
    /// The CPU probe has seen one of its cgroups.
    pub cpu_seen: bool,
    /// Wait of one of its cgroups for another of them, ns: to the kernel a neighbour's doing.
    pub within: u64,
    /// The neighbour's part as last published.
    published_neighbour: u64,
    /// What this reading adds to the stalls' wall time, and to that in full.
    stall: Option<(u64, u64)>,
    /// What the kernel keeps for the workload's own cgroup, by hierarchy, and in which reading it said so.
    stats: [(CgroupStat, u64); Hierarchies::COUNT],
}

impl Account {
    /// One of its cgroups was stopped for `wall` ns, `full` of them on every CPU, since the last reading.
    /// Cgroups of one workload are stopped together, by the quota above them: the workload was stopped
    /// for as long as the longest of them, and in full no longer than any. Their sum would exceed
    /// the time there was.
    fn stalled(&mut self, wall: u64, full: u64) {
        if wall == 0 {
            return;
        }
        let (longest, least) = self.stall.unwrap_or((wall, full));
        self.stall = Some((longest.max(wall), least.min(full)));
    }

    /// All its cgroups of this reading are booked.
    pub fn settle(&mut self) {
        let (wall, full) = self.stall.take().unwrap_or_default();
        self.cpu.stall_wall += wall;
        self.cpu.stall_full += full;
    }

    /// The counters to publish: one of its cgroups kept waiting by another is the workload's own doing.
    pub fn publish_cpu(&mut self) -> Option<CpuCounters> {
        if !self.cpu_seen {
            return None;
        }
        let mut cpu = self.cpu;
        // The two are read one after the other, so their difference may waver; a counter may not.
        let neighbour =
            cpu.neighbour.saturating_sub(self.within).max(self.published_neighbour.min(cpu.neighbour));
        cpu.own += cpu.neighbour - neighbour;
        cpu.neighbour = neighbour;
        self.published_neighbour = neighbour;
        Some(cpu)
    }

    pub fn set_stat(&mut self, hierarchy: Hierarchy, stat: CgroupStat, reading: u64) {
        self.stats[Hierarchies::index(hierarchy)] = (stat, reading);
    }

    /// What the kernel said in this reading, over the hierarchies.
    pub fn stat(&self, reading: u64) -> CgroupStat {
        self.merged(|&(_, at)| at == reading)
    }

    /// What the kernel said last, whenever that was.
    pub fn last_stat(&self) -> CgroupStat {
        self.merged(|_| true)
    }

    /// A v1 tree says what its controller counts; the rest (and all of it, in v2) is the unified tree's.
    fn merged(&self, wanted: impl Fn(&(CgroupStat, u64)) -> bool) -> CgroupStat {
        let of =
            |hierarchy| Some(&self.stats[Hierarchies::index(hierarchy)]).filter(|s| wanted(s)).map(|s| s.0);
        let (unified, cpu, memory) = (of(Hierarchy::Unified), of(Hierarchy::V1Cpu), of(Hierarchy::V1Memory));
        let number = |f: fn(&CgroupStat) -> Option<u64>| [cpu, unified, memory].iter().flatten().find_map(f);
        let pressure =
            |f: fn(&CgroupStat) -> Option<Pressure>| [unified, cpu, memory].iter().flatten().find_map(f);
        CgroupStat {
            cpu_usage: number(|s| s.cpu_usage),
            periods: number(|s| s.periods),
            throttled_periods: number(|s| s.throttled_periods),
            throttled: number(|s| s.throttled),
            quota: number(|s| s.quota),
            period: number(|s| s.period),
            cpu_pressure: pressure(|s| s.cpu_pressure),
            memory_pressure: pressure(|s| s.memory_pressure),
            io_pressure: pressure(|s| s.io_pressure),
        }
    }
}

/// The CPU quota of a cgroup in cores; `None` if unlimited or unknown.
pub fn quota_cores(stat: &CgroupStat) -> Option<f64> {
    let (quota, period) = (stat.quota?, stat.period.filter(|&p| p > 0)?);
    Some(quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(n: u64) -> CpuCounters {
        let mut c = CpuCounters {
            run: n,
            wait: 3 * n,
            neighbour: 2 * n,
            own: n,
            switches: n,
            ..CpuCounters::default()
        };
        c.wait_histogram.counts[4] = n;
        c
    }

    #[test]
    fn a_sum_follows_its_cgroups_and_keeps_what_the_dead_had() {
        let (mut a, mut b) = (CgroupAccount::default(), CgroupAccount::default());
        let mut sum = Account::default();
        a.book(&counters(10), &mut sum);
        b.book(&counters(5), &mut sum);
        assert_eq!(sum.cpu, counters(15));
        a.book(&counters(12), &mut sum);
        assert_eq!(sum.cpu, counters(17));
        // b died: nobody books it again.
        a.book(&counters(20), &mut sum);
        assert_eq!(sum.cpu, counters(25));
        // a lost its place in the kernel's table and began again.
        a.book(&counters(3), &mut sum);
        assert_eq!(sum.cpu, counters(28));
        a.book(&counters(4), &mut sum);
        assert_eq!(sum.cpu, counters(29));
    }

    #[test]
    fn a_part_that_wavers_does_not_add_up() {
        let (mut a, mut sum) = (CgroupAccount::default(), Account::default());
        for unattributed in [10, 8, 10, 8, 12] {
            a.book(&CpuCounters { unattributed, ..counters(1) }, &mut sum);
            assert_eq!(sum.cpu.unattributed, unattributed);
        }
    }

    #[test]
    fn cgroups_stopped_together_are_not_stopped_twice() {
        let stopped =
            |stall_wall, stall_full| CpuCounters { stall_wall, stall_full, ..CpuCounters::default() };
        let (mut a, mut b, mut sum) =
            (CgroupAccount::default(), CgroupAccount::default(), Account::default());
        let mut reading = |a_now, b_now| {
            a.book(&a_now, &mut sum);
            b.book(&b_now, &mut sum);
            sum.settle();
            (sum.cpu.stall_wall, sum.cpu.stall_full)
        };
        assert_eq!(reading(stopped(80, 80), stopped(70, 60)), (80, 60));
        assert_eq!(reading(stopped(160, 100), stopped(70, 60)), (160, 80), "the other slept");
        assert_eq!(reading(stopped(160, 100), stopped(70, 60)), (160, 80));
        assert_eq!(reading(stopped(160, 100), stopped(150, 60)), (240, 80));
        // Two slots of one cgroup are two times, one after the other.
        let mut slots = stopped(5, 3);
        add_slot(&mut slots, &stopped(7, 2));
        assert_eq!(slots, stopped(12, 5));
    }

    #[test]
    fn waiting_for_ones_own_is_no_neighbours_doing() {
        let mut account = Account::default();
        assert_eq!(account.publish_cpu(), None);
        account.cpu_seen = true;
        let mut before = CpuCounters::default();
        // (neighbour, own, within): the second and the last are read a little askew.
        for (neighbour, own, within) in [(100, 10, 60), (110, 10, 75), (120, 11, 75), (120, 11, 300)] {
            account.cpu = CpuCounters { neighbour, own, ..CpuCounters::default() };
            account.within = within;
            let now = account.publish_cpu().expect("seen");
            assert_eq!(now.neighbour + now.own, neighbour + own);
            assert!(now.neighbour >= before.neighbour && now.own >= before.own, "{before:?} then {now:?}");
            before = now;
        }
        assert_eq!((before.neighbour, before.own), (45, 86));
    }

    #[test]
    fn stats_merge_over_the_hierarchies_of_one_reading() {
        let psi = |some| Some(Pressure { some, full: None });
        let mut account = Account::default();
        let v2 = CgroupStat {
            cpu_usage: Some(1),
            cpu_pressure: psi(7),
            io_pressure: psi(8),
            ..CgroupStat::default()
        };
        account.set_stat(Hierarchy::Unified, v2, 1);
        assert_eq!(account.stat(1), v2);
        let v1 = CgroupStat {
            cpu_usage: Some(2),
            throttled: Some(3),
            quota: Some(4),
            period: Some(8),
            ..CgroupStat::default()
        };
        account.set_stat(Hierarchy::V1Cpu, v1, 1);
        assert_eq!(account.stat(1), CgroupStat { cpu_pressure: psi(7), io_pressure: psi(8), ..v1 });
        assert_eq!(quota_cores(&account.stat(1)), Some(0.5));
        // Nothing said in the next reading is nothing known, but the last word is kept for the end.
        assert_eq!(account.stat(2), CgroupStat::default());
        assert_eq!(account.last_stat(), CgroupStat { cpu_pressure: psi(7), io_pressure: psi(8), ..v1 });
    }

    #[test]
    fn no_quota_without_a_period() {
        let stat = CgroupStat { quota: Some(20), ..CgroupStat::default() };
        assert_eq!(quota_cores(&stat), None);
        assert_eq!(quota_cores(&CgroupStat { period: Some(0), ..stat }), None);
        assert_eq!(quota_cores(&CgroupStat { period: Some(100), ..stat }), Some(0.2));
    }
}
