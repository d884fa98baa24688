//! Which cgroups come and go, by tracepoints.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::rc::Rc;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, OpenObject, RingBuffer, RingBufferBuilder};

use super::name;
use super::skel::types::cgroup_event;
use super::skel::{CgroupsSkel, CgroupsSkelBuilder};
use crate::kernel::shared::{Wire, decode, until_nul};

// SAFETY: integers alone, a u64 first.
unsafe impl Wire for cgroup_event {}

/// `MADE` and `RENAMED` in bpf/cgroups.bpf.c; what remains is removed.
const MADE: u32 = 1;
const RENAMED: u32 = 2;

/// A cgroup was made, renamed or removed.
pub struct Event {
    pub id: u64,
    /// As in /proc/cgroups; 0 is v2.
    pub hierarchy: u32,
    pub made: bool,
    /// And so have those below it other paths now.
    pub renamed: bool,
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The process that did it.
    pub tgid: u32,
    pub comm: String,
    /// `None`: longer than the event has room for.
    pub path: Option<String>,
}

/// The attached tracepoints.
pub struct Changes<'obj> {
    skel: CgroupsSkel<'obj>,
    _links: [Link; 3],
    ring: RingBuffer<'static>,
    arrived: Rc<RefCell<Vec<Event>>>,
    lost_seen: u64,
}

impl<'obj> Changes<'obj> {
    /// Loads and attaches: typed tracepoints, else raw ones.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>, typed: bool) -> libbpf_rs::Result<Self> {
        let mut open = CgroupsSkelBuilder::default().open(storage)?;
        let programs = &mut open.progs;
        for program in if typed {
            [&mut programs.cgroup_mkdir_btf, &mut programs.cgroup_rmdir_btf, &mut programs.cgroup_rename_btf]
        } else {
            [&mut programs.cgroup_mkdir_raw, &mut programs.cgroup_rmdir_raw, &mut programs.cgroup_rename_raw]
        } {
            program.set_autoload(true);
        }
        open.maps.stats.set_autocreate(false)?;
        let skel = open.load()?;
        let programs = &skel.progs;
        let links = if typed {
            [&programs.cgroup_rmdir_btf, &programs.cgroup_mkdir_btf, &programs.cgroup_rename_btf]
        } else {
            [&programs.cgroup_rmdir_raw, &programs.cgroup_mkdir_raw, &programs.cgroup_rename_raw]
        };
        let [rmdir, mkdir, rename] = links;
        let links = [rmdir.attach()?, mkdir.attach()?, rename.attach()?];
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let to = arrived.clone();
        let mut builder = RingBufferBuilder::new();
        builder.add(&skel.maps.events, move |bytes| {
            to.borrow_mut().extend(decode(bytes).map(event));
            0
        })?;
        let ring = builder.build()?;
        Ok(Changes { skel, _links: links, ring, arrived, lost_seen: 0 })
    }

    /// Readable when events have arrived.
    pub fn fd(&self) -> i32 {
        self.ring.epoll_fd()
    }

    /// Events that did not fit the ring buffer, since loading.
    pub fn lost(&self) -> u64 {
        self.skel.maps.bss_data.as_deref().map_or(0, |data| {
            // SAFETY: a whole, aligned u64 of a mapping that lives as long as `self`; BPF writes it meanwhile.
            unsafe { (&raw const data.events_lost).read_volatile() }
        })
    }

    /// Takes the events that have arrived, in their order; true if some were lost since the last call.
    pub fn drain(&mut self, take: impl FnMut(Event)) -> bool {
        // An error is EINTR or the like: what is left comes with the next call.
        let _ = self.ring.consume();
        self.arrived.borrow_mut().drain(..).for_each(take);
        let lost = self.lost();
        std::mem::replace(&mut self.lost_seen, lost) != lost
    }
}

fn event(raw: cgroup_event) -> Event {
    let length = usize::try_from(raw.path_len).ok().filter(|length| (1..raw.path.len()).contains(length));
    let path = length.map(|length| {
        let bytes: Vec<u8> = raw.path[..length - 1].iter().map(|c| *c as u8).collect();
        name::text(&bytes).into_owned()
    });
    Event {
        id: raw.id,
        hierarchy: raw.hierarchy,
        made: raw.what == MADE,
        renamed: raw.what == RENAMED,
        at_ns: raw.at,
        tgid: raw.tgid,
        comm: until_nul(&raw.comm.map(|c| c as u8)),
        path,
    }
}
