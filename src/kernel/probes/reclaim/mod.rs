//! What held up whoever waited for memory: direct reclaim, for a limit of its own or for a node that is short
//! (`bpf/reclaim.bpf.c`), and what the memory controller's files say of those alone that waited ([`files`]).
//!
//! What threads slept for memory the CPU probe counts; whose it all is, `attribution` says.
//!
//! Inside belongs what is counted of those who wait for memory; that they do, the sampling of cgroups says.

mod files;
mod plan;

use std::mem::MaybeUninit;
use std::sync::Arc;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, OpenObject};

pub use plan::{Reclaim, ReclaimHook, ReclaimOptions};

use crate::kernel::batch;
use crate::kernel::probe::Probe;
use crate::kernel::shared::Wire;
use crate::kernel::{
    CgroupKey, Hierarchy, Loss, Lost, ProgramCost, Reading, ReclaimCounters, ReclaimReading, cost,
};
use files::Files;

skeleton!(skel, "reclaim");
use skel::types::reclaim;
use skel::{ReclaimSkel, ReclaimSkelBuilder};

// SAFETY: u64s alone (generated from bpf/reclaim.bpf.c's own BTF).
unsafe impl Wire for reclaim {}

const RECLAIMS: Loss = Loss::of_table(
    "reclaims",
    "more threads reclaim memory at a time than 4096, or those of more cgroups than agent.max_cgroups: the rest of their \
     time is missing beside memory_pressure; raise agent.max_cgroups",
);
const MEMORY_UNREAD: Loss = Loss::new("memory_unread");

/// The reasons it loses something for.
pub const LOSSES: &[Loss] = &[RECLAIMS, MEMORY_UNREAD];

/// The programs could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
#[error("reclaim: cannot {step}: {source}")]
pub struct ReclaimError {
    step: &'static str,
    source: libbpf_rs::Error,
}

fn bpf(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> ReclaimError {
    move |source| ReclaimError { step, source }
}

/// The loaded probe.
pub struct ReclaimProbe<'obj> {
    programs: Option<Programs<'obj>>,
    files: Option<Files>,
}

struct Programs<'obj> {
    skel: ReclaimSkel<'obj>,
    _links: Vec<Link>,
    names: Vec<Arc<str>>,
    hierarchy: Hierarchy,
    /// Reclaims that had ended when the table was read last.
    ended: u64,
    keys: Vec<u64>,
    values: Vec<reclaim>,
    /// How many of them are known.
    known: usize,
}

impl<'obj> ReclaimProbe<'obj> {
    /// Loads and attaches what the options ask for.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        options: ReclaimOptions,
    ) -> Result<Self, ReclaimError> {
        let files = options.files.map(|(tree, unified)| Files::new(tree, unified));
        let programs = match options.programs {
            true => Some(Programs::load(storage, options.hierarchy, options.max_cgroups)?),
            false => None,
        };
        Ok(ReclaimProbe { programs, files })
    }
}

impl Probe for ReclaimProbe<'_> {
    fn read(&mut self, reading: &mut Reading) {
        if let Some(programs) = &mut self.programs {
            programs.read(&mut reading.reclaim);
        }
        if let Some(files) = &mut self.files {
            files.read(reading);
        }
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        out.push(RECLAIMS.lost(self.programs.as_ref().map_or(0, Programs::lost)));
        out.push(MEMORY_UNREAD.lost(self.files.as_ref().map_or(0, Files::unread)));
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        let Some(Programs { skel, names, .. }) = &self.programs else { return };
        let p = &skel.progs;
        let all = [&p.own_begins, &p.own_ends, &p.node_begins, &p.node_ends];
        out.extend(all.into_iter().zip(names).filter_map(|(program, name)| cost::of(program, name)));
    }

    fn forget(&mut self, cgroup: CgroupKey) {
        if let Some(programs) = self.programs.as_mut().filter(|p| p.hierarchy == cgroup.hierarchy) {
            programs.forget(cgroup.id);
        }
        if let Some(files) = &mut self.files {
            files.forget(cgroup);
        }
    }
}

impl<'obj> Programs<'obj> {
    fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        hierarchy: Hierarchy,
        max_cgroups: u32,
    ) -> Result<Self, ReclaimError> {
        let mut open = ReclaimSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        open.maps.reclaims.set_max_entries(max_cgroups).map_err(bpf("size a map"))?;
        let skel = open.load().map_err(bpf("load the programs"))?;
        let p = &skel.progs;
        let names = [&p.own_begins, &p.own_ends, &p.node_begins, &p.node_ends].map(cost::name).into();
        // Ends first: a beginning of which the end was missed would be ended by the next one's.
        let mut links = Vec::new();
        for program in [&p.own_ends, &p.node_ends, &p.own_begins, &p.node_begins] {
            links.push(program.attach().map_err(bpf("attach to the tracepoints of reclaim"))?);
        }
        let room = max_cgroups as usize;
        let (keys, values) = (vec![0; room], vec![reclaim::default(); room]);
        Ok(Programs { skel, _links: links, names, hierarchy, ended: 0, keys, values, known: 0 })
    }

    /// A number that the programs count.
    fn counted(&self, of: impl Fn(*const skel::types::bss) -> *const u64) -> u64 {
        // SAFETY: a whole, aligned u64 of a mapping that lives as long as `self`; BPF writes it meanwhile.
        self.skel.maps.bss_data.as_deref().map_or(0, |data| unsafe { of(data).read_volatile() })
    }

    fn lost(&self) -> u64 {
        // SAFETY: the address of a field of what it points to.
        self.counted(|data| unsafe { &raw const (*data).lost })
    }

    fn read(&mut self, out: &mut Vec<ReclaimReading>) {
        // SAFETY: as above.
        let ended = self.counted(|data| unsafe { &raw const (*data).ended });
        // On most nodes nobody reclaims for hours.
        if ended != self.ended {
            let found = batch::read(&self.skel.maps.reclaims, &mut self.keys, &mut self.values);
            self.known = found.entries;
            // What was not read is read the next time.
            self.ended = if found.whole { ended } else { self.ended };
        }
        let known = self.keys[..self.known].iter().zip(&self.values);
        out.extend(known.map(|(id, sum)| ReclaimReading {
            cgroup: CgroupKey { hierarchy: self.hierarchy, id: *id },
            counters: ReclaimCounters {
                own: sum.own,
                own_times: sum.own_times,
                node: sum.node,
                node_times: sum.node_times,
            },
        }));
    }

    fn forget(&mut self, id: u64) {
        let Some(at) = self.keys[..self.known].iter().position(|known| *known == id) else { return };
        let _ = self.skel.maps.reclaims.delete(&id.to_ne_bytes());
        self.known -= 1;
        self.keys.swap(at, self.known);
        self.values.swap(at, self.known);
    }
}
