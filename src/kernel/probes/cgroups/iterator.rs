//! Numbers of all cgroups of the v2 tree by one run of a BPF iterator.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{CgroupIterOpts, CgroupIterOrder, IterOpts, Link, OpenObject};

use super::skel::types::cgroup_stat;
use super::skel::{CgroupsSkel, CgroupsSkelBuilder};
use crate::kernel::probe::walk;
use crate::kernel::shared::{ShareError, SharedArray, Wire};
use crate::kernel::{CgroupKey, CgroupStat, Hierarchy, Pressure, StatReading};

// SAFETY: u64s alone.
unsafe impl Wire for cgroup_stat {}

/// `UNKNOWN` in bpf/cgroups.bpf.c.
const UNKNOWN: u64 = u64::MAX;

/// The iterator could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum IteratorError {
    #[error("{0}")]
    Bpf(#[from] libbpf_rs::Error),
    #[error("{0}")]
    Share(#[from] ShareError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The loaded iterator over one tree.
pub struct Iterator<'obj> {
    skel: CgroupsSkel<'obj>,
    link: Link,
    stats: SharedArray<cgroup_stat>,
}

impl<'obj> Iterator<'obj> {
    /// Loads the iterator for the tree at `root`, with room for `max_cgroups`.
    pub fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        root: &Path,
        max_cgroups: u32,
    ) -> Result<Self, IteratorError> {
        let root = File::open(root)?;
        let mut open = CgroupsSkelBuilder::default().open(storage)?;
        open.progs.cgroup_stats.set_autoload(true);
        open.maps.stats.set_max_entries(max_cgroups)?;
        open.maps.events.set_autocreate(false)?;
        let skel = open.load()?;
        let mut options = CgroupIterOpts::from_fd(root.as_fd());
        options.order = CgroupIterOrder::DescendantsPre;
        let link = skel.progs.cgroup_stats.attach_iter_with_opts(IterOpts::Cgroup(options))?;
        let stats = SharedArray::new(&skel.maps.stats)?;
        Ok(Iterator { skel, link, stats })
    }

    /// Visits every cgroup there is room for once; says how many there was none for.
    ///
    /// # Errors
    /// When the run failed: none was visited.
    pub fn run(&mut self, mut visit: impl FnMut(StatReading)) -> io::Result<usize> {
        let Some(data) = self.skel.maps.bss_data.as_deref_mut() else {
            return Err(io::Error::other("the BPF object has no data section"));
        };
        data.visited = 0;
        walk(&self.link)?;
        // SAFETY: a whole, aligned u32 of a mapping that lives as long as `self`; volatile since BPF wrote it.
        let visited = unsafe { (&raw const data.visited).read_volatile() } as usize;
        for i in 0..visited.min(self.stats.len()) {
            visit(reading(&self.stats.get(i)));
        }
        Ok(visited.saturating_sub(self.stats.len()))
    }
}

fn reading(raw: &cgroup_stat) -> StatReading {
    let known = |value: u64| (value != UNKNOWN).then_some(value);
    let page = rustix::param::page_size() as u64;
    let pressure = |some, full| Some(Pressure { some: known(some)?, full: known(full) });
    StatReading {
        cgroup: CgroupKey { hierarchy: Hierarchy::Unified, id: raw.id },
        stat: CgroupStat {
            cpu_usage: known(raw.usage),
            periods: known(raw.periods),
            throttled_periods: known(raw.throttled_periods),
            throttled: known(raw.throttled),
            quota: known(raw.quota),
            period: known(raw.period),
            memory_usage: known(raw.memory).map(|pages| pages.saturating_mul(page)),
            cpu_pressure: pressure(raw.cpu_some, raw.cpu_full),
            memory_pressure: pressure(raw.memory_some, raw.memory_full),
            io_pressure: pressure(raw.io_some, raw.io_full),
        },
    }
}
