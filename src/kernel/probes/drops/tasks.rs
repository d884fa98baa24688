//! What network namespaces count, and nothing of single packets: for kernels that give no reasons, or have no iterator over
//! cgroups. Runs the programs of `bpf/net_tasks.bpf.c` and reads their maps.

use std::mem::MaybeUninit;

use foldhash::HashMap;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{OpenObject, ProgramInput, ProgramMut};

use super::names::{self, Counters};
use super::{BUSY_FOR, DropLosses, DropsError, GONE_AFTER, WALK_EVERY, bpf};
use crate::kernel::clock::Every;
use crate::kernel::cpus::Possible;
use crate::kernel::probe::Probe;
use crate::kernel::shared::{SharedArray, Wire};
use crate::kernel::{
    CgroupChange, CgroupKey, Hierarchy, Lost, NamespaceReading, PacketCounters, ProgramCost, Reading,
};

skeleton!(skel, "net_tasks");
use skel::types::{member, space};
use skel::{NetTasksSkel, NetTasksSkelBuilder};

// SAFETY: integers alone, u64 first (generated from bpf/net_tasks.bpf.c's own BTF).
unsafe impl Wire for space {}
// SAFETY: as above.
unsafe impl Wire for member {}

/// Processes that a walk has room for: as many as a Linux without settings of its own has PIDs.
const PROCESSES: u32 = 32_768;
/// Runs of a program at most, each of 1,024 steps.
const RUNS: u32 = 256;
/// BPF_F_TEST_RUN_ON_CPU
const ON_CPU: u32 = 1;
/// A CPU may come up: so many walks lie between two looks at those that are off.
const LOOK_AFTER: u32 = 12;

/// How to load it; the plan says.
#[derive(Clone, Debug)]
pub struct TaskWalkOptions {
    /// The tree of the cpu controller.
    pub hierarchy: Hierarchy,
}

/// The loaded programs, which run when they are asked to.
pub struct TaskWalk<'obj> {
    skel: NetTasksSkel<'obj>,
    options: TaskWalkOptions,
    spaces: SharedArray<space>,
    members: SharedArray<member>,
    cpus: u32,
    /// Counters, and the walk that found them.
    found: HashMap<u64, (PacketCounters, u32)>,
    walk: u32,
    every: Every,
    busy_until: u64,
    unfound: u64,
}

impl<'obj> TaskWalk<'obj> {
    /// Loads the programs. `storage` holds the BPF object and must outlive it.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        options: TaskWalkOptions,
    ) -> Result<Self, DropsError> {
        let btf = Btf::from_path("/sys/kernel/btf/vmlinux").map_err(bpf("read the kernel's types"))?;
        let layout = Counters::of(&btf).ok_or(DropsError::Names)?.layout;
        drop(btf);
        let cpus = Possible::read()?;
        let mut open = NetTasksSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            layout.tell(&mut rodata.spans, &mut rodata.wanted, |to, span| {
                (to.first, to.at, to.size) = (span.first, span.at, span.bytes());
            });
            (rodata.cpus_end, rodata.possible_cpus) = (cpus.end(), cpus.bits());
            rodata.unified = u8::from(options.hierarchy == Hierarchy::Unified);
        }
        open.maps.members.set_max_entries(PROCESSES).map_err(bpf("size a map"))?;
        open.open_object_mut().progs_mut().for_each(|mut program| program.set_autoload(true));
        let skel = open.load().map_err(bpf("load the programs"))?;
        let mut walk = TaskWalk {
            spaces: SharedArray::new(&skel.maps.spaces)?,
            members: SharedArray::new(&skel.maps.members)?,
            skel,
            options,
            cpus: cpus.end(),
            found: HashMap::default(),
            walk: 0,
            every: Every::new(WALK_EVERY),
            busy_until: 0,
            unfound: 0,
        };
        walk.find_copies();
        walk.run(&walk.skel.progs.find_tasks).map_err(bpf("run a program"))?;
        Ok(walk)
    }

    fn run(&self, program: &ProgramMut<'_>) -> Result<(), libbpf_rs::Error> {
        program.test_run(ProgramInput::default()).map(drop)
    }

    /// Where each CPU has its copies. One that is off refuses, and has counted nothing so far; what it counted before it went off
    /// is known.
    fn find_copies(&mut self) {
        for cpu in 0..self.cpus {
            let known = self.skel.maps.bss_data.as_deref().is_some_and(|data| data.known[cpu as usize] != 0);
            if !known {
                let on = ProgramInput { cpu, flags: ON_CPU, ..ProgramInput::default() };
                let _ = self.skel.progs.find_copy.test_run(on);
            }
        }
    }

    /// One walk: who is in which namespace, and what each counts.
    fn walk(&mut self, reading: &mut Reading) {
        if self.walk.is_multiple_of(LOOK_AFTER) {
            self.find_copies();
        }
        self.walk += 1;
        let Some(data) = self.skel.maps.bss_data.as_deref_mut() else { return };
        data.walk = self.walk;
        (data.found_spaces, data.found_members, data.walked) = (0, 0, 0);
        (data.next_task, data.at_space, data.at_cpu) = (0, 0, 0);
        for _ in 0..RUNS {
            if self.run(&self.skel.progs.find_tasks).is_err() || self.state(|data| data.walked) != 0 {
                break;
            }
        }
        let (found_spaces, found_members) =
            (self.state(|data| data.found_spaces) as usize, self.state(|data| data.found_members) as usize);
        let spaces = found_spaces.min(self.spaces.len());
        for _ in 0..RUNS {
            if self.run(&self.skel.progs.add_copies).is_err()
                || self.state(|data| data.at_space) as usize >= spaces
            {
                break;
            }
        }
        // What was not added up to the end is not told.
        let added = self.state(|data| data.at_space) as usize;
        let members = found_members.min(self.members.len());
        self.unfound += (found_spaces - spaces.min(added) + found_members - members) as u64;
        for i in 0..spaces.min(added) {
            let space = self.spaces.get(i);
            if space.number != 0 {
                self.found.insert(space.number, (names::counters(&space.counters), self.walk));
            }
        }
        for i in 0..members {
            let member { space: number, cgroup } = self.members.get(i);
            let key = CgroupKey { hierarchy: self.options.hierarchy, id: cgroup };
            // Processes of one cgroup mostly lie side by side.
            if reading.members.last() != Some(&(number, key)) {
                reading.members.push((number, key));
            }
        }
        let walk = self.walk;
        self.found.retain(|_, (_, found)| walk - *found < GONE_AFTER);
    }

    /// Something of what the programs keep.
    fn state(&self, of: impl FnOnce(&skel::types::bss) -> u32) -> u32 {
        // The programs run only within this thread's calls: nothing is written meanwhile.
        self.skel.maps.bss_data.as_deref().map_or(0, of)
    }
}

impl Probe for TaskWalk<'_> {
    fn read(&mut self, reading: &mut Reading) {
        let now = reading.at.mono_ns;
        if reading.changes.iter().any(|change| matches!(change, CgroupChange::Present { .. })) {
            self.busy_until = now + BUSY_FOR.as_nanos() as u64;
        }
        if self.every.due(now) || now < self.busy_until {
            self.walk(reading);
        }
        reading.namespaces.extend(self.found.iter().map(|(number, (counters, _))| NamespaceReading {
            namespace: *number,
            counters: *counters,
            conntrack_full: 0,
            counted_only: true,
        }));
    }

    fn losses(&self, out: &mut Vec<Lost>) {
        out.extend(DropLosses { drops: 0, namespaces: self.unfound }.by_reason());
    }

    /// Not told so far.
    fn costs(&self, _out: &mut Vec<ProgramCost>) {}
}
