//! Packets that the kernel dropped: loads and attaches `bpf/drops.bpf.c` and reads its maps.
//!
//! Inside belongs what is known of a network namespace: its packets, those dropped with the kernel's reason, and which
//! cgroups have tasks in it. Whose it is, `attribution` says.

mod losses;
mod names;
mod plan;
mod tasks;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{CgroupIterOpts, CgroupIterOrder, IterOpts, Link, MapCore, OpenObject, ProgramMut};

pub use losses::DropLosses;
pub use plan::{Drops, DropsHook, NetworkOptions, NetworkProbe};
pub use tasks::{TaskWalk, TaskWalkOptions};

use crate::kernel::batch;
use crate::kernel::clock::Every;
use crate::kernel::cpus::Possible;
use crate::kernel::probe::{Probe, walk};
use crate::kernel::shared::{ShareError, SharedArray, Wire};
use crate::kernel::{
    CgroupChange, CgroupKey, DropReading, DropReason, Hierarchy, Hook, Lost, NamespaceReading,
    PacketCounters, ProgramCost, Reading, cost,
};
use names::{Counters, Reasons};

skeleton!(skel, "drops");
use skel::types::{drop_key, member, space};
use skel::{DropsSkel, DropsSkelBuilder};

// SAFETY: integers alone, u64 first (generated from bpf/drops.bpf.c's own BTF).
unsafe impl Wire for space {}
// SAFETY: as above.
unsafe impl Wire for member {}
// SAFETY: as above.
unsafe impl Wire for drop_key {}

/// `DROPS` in bpf/drops.bpf.c.
const DROP_ENTRIES: usize = 8192;
/// Between two walks while nothing is dropped and no cgroup is made: 0.85 µs a cgroup, and 1 µs and more a namespace.
const WALK_EVERY: Duration = Duration::from_secs(5);
/// So long after a drop, or after a cgroup was made, each reading walks: its numbers are then of one moment, and what
/// a pod's start brings is found.
const BUSY_FOR: Duration = Duration::from_secs(20);
/// A namespace that this many walks did not find is gone.
const GONE_AFTER: u32 = 3;

impl Probe for DropProbe<'_> {
    fn read(&mut self, reading: &mut Reading) {
        self.read(reading);
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        out.extend(self.losses().by_reason());
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        out.extend(cost::of(self.program(), &self.name));
    }
}

/// How to load the probe; the plan says.
#[derive(Clone, Debug)]
pub struct DropsOptions {
    pub hook: Hook,
    /// Where the tree to be walked is mounted, and which it is.
    pub root: PathBuf,
    pub hierarchy: Hierarchy,
    /// What the kernel gives no reason for is a loss like others (6.6).
    pub judge_unspecified: bool,
    /// Cgroups with tasks the walk has room for.
    pub max_cgroups: u32,
}

/// The probe could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum DropsError {
    #[error("drops probe: cannot {step}: {source}")]
    Bpf { step: &'static str, source: libbpf_rs::Error },
    #[error("drops probe: {0}")]
    Share(#[from] ShareError),
    #[error("drops probe: {0}")]
    Io(#[from] io::Error),
    #[error("drops probe: this kernel's types lack a reason or counter by name")]
    Names,
}

fn bpf(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> DropsError {
    move |source| DropsError::Bpf { step, source }
}

/// A namespace as it was found last.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    counters: PacketCounters,
    conntrack_full: u64,
    /// The walk that found it.
    walk: u32,
}

/// The loaded probe. Detached and freed by the kernel when dropped, or when the process ends in whatever way.
pub struct DropProbe<'obj> {
    skel: DropsSkel<'obj>,
    /// The iterator; the tracepoint.
    walker: Link,
    _tracepoint: Link,
    name: Arc<str>,
    options: DropsOptions,
    counts_late: bool,
    unspecified: u32,
    spaces: SharedArray<space>,
    members: SharedArray<member>,
    found: HashMap<u64, Space>,
    walk: u32,
    every: Every,
    busy_until: u64,
    keys: Vec<drop_key>,
    values: Vec<u64>,
    dropped: u64,
    unfound: u64,
}

impl<'obj> DropProbe<'obj> {
    /// Loads and attaches. `storage` holds the BPF object and must outlive the probe.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        options: DropsOptions,
    ) -> Result<Self, DropsError> {
        let btf = Btf::from_path("/sys/kernel/btf/vmlinux").map_err(bpf("read the kernel's types"))?;
        let counters = Counters::of(&btf).ok_or(DropsError::Names)?;
        let reasons = Reasons::find().ok_or(DropsError::Names)?;
        drop(btf);
        let root = File::open(&options.root)?;
        let cpus = Possible::read()?;
        let mut open = DropsSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            for reason in &reasons.no_loss {
                if let Some(ignored) = rodata.ignored.get_mut(*reason as usize) {
                    *ignored = 1;
                }
            }
            rodata.unspecified = reasons.unspecified;
            rodata.no_socket = reasons.no_socket;
            rodata.odd_flags = reasons.odd_flags;
            (rodata.cpus_end, rodata.possible_cpus) = (cpus.end(), cpus.bits());
            rodata.netfilter = reasons.netfilter;
            counters.layout.tell(&mut rodata.spans, &mut rodata.wanted, |to, span| {
                (to.first, to.at, to.size) = (span.first, span.at, span.bytes());
            });
        }
        open.maps.members.set_max_entries(options.max_cgroups).map_err(bpf("size a map"))?;
        match options.hook {
            Hook::TpBtf => &mut open.progs.kfree_skb_btf,
            Hook::RawTracepoint => &mut open.progs.kfree_skb_raw,
        }
        .set_autoload(true);
        open.progs.find_spaces.set_autoload(true);
        let skel = open.load().map_err(bpf("load the programs"))?;
        let mut iterator = CgroupIterOpts::from_fd(root.as_fd());
        iterator.order = CgroupIterOrder::DescendantsPre;
        let walker = skel
            .progs
            .find_spaces
            .attach_iter_with_opts(IterOpts::Cgroup(iterator))
            .map_err(bpf("make an iterator over cgroups"))?;
        // The first walk says whose the addresses are.
        walk(&walker)?;
        let program = program(&skel, options.hook);
        let name = cost::name(program);
        let tracepoint = program.attach().map_err(bpf("attach to the tracepoint kfree_skb"))?;
        Ok(DropProbe {
            spaces: SharedArray::new(&skel.maps.spaces)?,
            members: SharedArray::new(&skel.maps.members)?,
            skel,
            walker,
            _tracepoint: tracepoint,
            name,
            options,
            counts_late: counters.late,
            unspecified: reasons.unspecified,
            found: HashMap::default(),
            walk: 0,
            every: Every::new(WALK_EVERY),
            busy_until: 0,
            keys: vec![drop_key::default(); DROP_ENTRIES],
            values: vec![0; DROP_ENTRIES],
            dropped: 0,
            unfound: 0,
        })
    }

    fn program(&self) -> &ProgramMut<'obj> {
        program(&self.skel, self.options.hook)
    }

    /// Packets, and parts of them, that ended without being lost, though the kernel's tracepoint told of them.
    pub fn not_losses(&self) -> u64 {
        self.skel.maps.bss_data.as_deref().map_or(0, |data| data.not_losses)
    }

    /// What was lost so far.
    pub fn losses(&self) -> DropLosses {
        let drops = self.skel.maps.bss_data.as_deref().map_or(0, |data| data.drops_lost);
        DropLosses { drops, namespaces: self.unfound }
    }

    fn read(&mut self, reading: &mut Reading) {
        let now = reading.at.mono_ns;
        let made = reading.changes.iter().any(|change| matches!(change, CgroupChange::Present { .. }));
        let found = batch::read(&self.skel.maps.drops, &mut self.keys, &mut self.values).entries;
        let dropped = self.values[..found].iter().sum();
        if made || std::mem::replace(&mut self.dropped, dropped) != dropped {
            self.busy_until = now + BUSY_FOR.as_nanos() as u64;
        }
        let due = self.every.due(now);
        if due || now < self.busy_until {
            self.walk(reading);
        }
        self.tell(found, reading);
    }

    /// Walks the cgroups for namespaces: their counters, and who is in them.
    fn walk(&mut self, reading: &mut Reading) {
        self.walk += 1;
        let Some(data) = self.skel.maps.bss_data.as_deref_mut() else { return };
        (data.walk, data.found_spaces, data.found_members) = (self.walk, 0, 0);
        if walk(&self.walker).is_err() {
            return; // EINTR or the like: the next one finds them
        }
        // SAFETY: whole, aligned u32s of a mapping that lives as long as `self`; volatile since BPF wrote them.
        let (spaces, members) = unsafe {
            ((&raw const data.found_spaces).read_volatile(), (&raw const data.found_members).read_volatile())
        };
        let (spaces, members) = (spaces as usize, members as usize);
        self.unfound +=
            (spaces.saturating_sub(self.spaces.len()) + members.saturating_sub(self.members.len())) as u64;
        for i in 0..spaces.min(self.spaces.len()) {
            let found = self.spaces.get(i);
            let space { cookie, conntrack_full, .. } = found;
            let interface_dropped = (found.interfaces_unknown == 0).then_some(found.interface_dropped);
            let counters = PacketCounters { interface_dropped, ..names::counters(&found.counters) };
            self.found.insert(cookie, Space { counters, conntrack_full, walk: self.walk });
        }
        for i in 0..members.min(self.members.len()) {
            let member { space: cookie, cgroup } = self.members.get(i);
            reading.members.push((cookie, CgroupKey { hierarchy: self.options.hierarchy, id: cgroup }));
        }
        let walk = self.walk;
        self.found.retain(|_, space| walk - space.walk < GONE_AFTER);
    }

    /// Appends the namespaces that live and their drops; those of the dead make room.
    fn tell(&mut self, found: usize, reading: &mut Reading) {
        reading.namespaces.extend(self.found.iter().map(|(cookie, space)| NamespaceReading {
            namespace: *cookie,
            counters: space.counters,
            conntrack_full: space.conntrack_full,
            counted_only: false,
        }));
        for (key, packets) in self.keys[..found].iter().zip(&self.values) {
            if !self.found.contains_key(&key.space) && !self.found.contains_key(&key.other) {
                // What is gone makes room once that is scarce; what is not found yet may keep its place.
                if found > DROP_ENTRIES * 3 / 4 {
                    let _ = self.skel.maps.drops.delete(bytes(key));
                }
                continue;
            }
            reading.drops.push(DropReading {
                namespace: key.space,
                out: key.out != 0,
                uncounted: key.early != 0 && self.counts_late,
                other: (key.other != 0).then_some((key.other, key.other_out != 0)),
                cgroup: (key.cgroup != 0)
                    .then_some(CgroupKey { hierarchy: Hierarchy::Unified, id: key.cgroup }),
                reason: DropReason(key.reason),
                untracked: key.untracked != 0,
                a_loss: self.options.judge_unspecified || key.reason != self.unspecified,
                packets: *packets,
            });
        }
    }
}

fn bytes(key: &drop_key) -> &[u8] {
    // SAFETY: integers alone, without padding between or after them (generated from bpf/drops.bpf.c's own BTF).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(key).cast(), size_of::<drop_key>()) }
}

fn program<'a, 'obj>(skel: &'a DropsSkel<'obj>, hook: Hook) -> &'a ProgramMut<'obj> {
    match hook {
        Hook::TpBtf => &skel.progs.kfree_skb_btf,
        Hook::RawTracepoint => &skel.progs.kfree_skb_raw,
    }
}
