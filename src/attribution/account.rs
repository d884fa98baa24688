//! The sums: cumulative numbers of cgroups made into cumulative numbers of workloads, that never go
//! down though cgroups come and go beneath them.

use crate::kernel::{
    CgroupStat, Counter, CpuCounters, Hierarchy, MemoryStat, NetworkCounters, Pressure, ReclaimCounters,
};

use super::tree::Hierarchies;

/// What one cgroup was last read to have; what of it is in its workload's sum.
#[derive(Debug, Default)]
pub struct CgroupAccount {
    last: Option<Box<CpuCounters>>,
    reclaim: ReclaimCounters,
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
        // It was dropped from the kernel's table and began again at zero: what it had stays in the sum. A count tells, as
        // it is of no clock.
        if now.switches < last.switches {
            **last = CpuCounters::default();
        }
        // Where the kernel marks it at all, it has been counted from the beginning.
        last.memory = last.memory.or(now.memory.map(|_| 0));
        to.cpu_seen = true;
        let mut growth = now.growth(last);
        // Times by the clock on the wall do not add up over cgroups.
        let (wall, full) =
            (std::mem::take(&mut growth.throttled_wall), std::mem::take(&mut growth.throttled_full));
        to.stalled(wall, full);
        // Over cgroups `waited` may be more than the time in which any of them waited: never more than the neighbours' part.
        to.cpu.add(&growth);
        // The one that may shrink: a wait is read before its parts now and then.
        let parts = to.cpu.throttle + to.cpu.neighbour + to.cpu.own;
        to.cpu.unattributed = to.cpu.wait.saturating_sub(parts);
        **last = *now;
    }
}

impl CgroupAccount {
    /// The same of reclaim.
    pub fn book_reclaim(&mut self, now: &ReclaimCounters, to: &mut Account) {
        // Less than before: the cgroup had been taken out of the kernel's table.
        let grown = now.since(&self.reclaim).unwrap_or(*now);
        self.reclaim = *now;
        to.reclaim.get_or_insert_default().add(&grown);
    }
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
    /// Reclaim by its cgroups' threads, the dead included; `None` while nothing counts it.
    pub reclaim: Option<ReclaimCounters>,
    /// What the memory controller said last of the workload's own cgroup, where it waited for memory.
    pub memory: Option<MemoryStat>,
    /// Its packets; `None` while it has no network namespace to itself and lost none.
    pub network: Option<NetworkCounters>,
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
        self.cpu.throttled_wall += wall;
        self.cpu.throttled_full += full;
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
            memory_usage: number(|s| s.memory_usage),
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
mod tests;
