//! What a pod's start costs: a [`Recorder`] of every process that is forked or execs while it is on. It knows
//! nothing of pods; whoever reads the records joins processes to them, by cgroup, arguments and lineage.
//!
//! Between recordings none of its programs is attached. [`Recorder::start`] attaches them, which takes some
//! milliseconds; they were loaded before.
//!
//! Inside belongs what a program tells of a process; whose start it was part of, `birth` says.

mod event;
mod losses;
mod plan;
mod programs;
pub mod record;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::HashMap;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, ProgramMut, RingBuffer, RingBufferBuilder};
use tracing::warn;

pub use losses::BirthLosses;
pub use plan::{Births, BirthsHook, Entry};
pub use record::*;

use crate::kernel::probe::Probe;
use crate::kernel::shared::{ShareError, SharedArray};
use crate::kernel::{Hierarchy, Lost, ProgramCost, Reading, clock, cost};
use event::{Decoder, Event, Key, What, counters};

skeleton!(skel, "birth");
use programs::{programs, to_load};
use skel::types::segment;
use skel::{BirthSkel, BirthSkelBuilder};

/// Segments that ended, remembered so that a fact told late finds who did it.
const REMEMBERED: usize = 4096;

/// What was recorded is asked for by [`Recorder::drain`], between readings.
impl Probe for Recorder<'_> {
    fn read(&mut self, _reading: &mut Reading) {}

    fn losses(&self, out: &mut Vec<Lost>) {
        out.extend(self.losses().by_reason());
    }

    fn costs(&self, out: &mut Vec<ProgramCost>) {
        self.costs(out);
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.fd())
    }
}

/// How to load the recorder.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    pub entry: Entry,
    /// The tree that [`Place::cgroup`] is of: the cpu controller's.
    pub hierarchy: Hierarchy,
    /// Segments that live at a time, and those that ended since the last [`Recorder::drain`]: 2.2 KiB each.
    pub max_segments: u32,
    /// Room for events between two [`Recorder::drain`]s, a power of two; a program that is begun takes 4 KiB.
    pub ring_bytes: u32,
    /// An iterator over tasks may be used: without it waiting, bytes and faults of a segment that lives are not known.
    pub tally: bool,
    /// What the names of environment variables that are kept begin with.
    pub env: Vec<String>,
}

impl RecorderOptions {
    /// Room for some 20 births at a time beside 3,000 processes that begin within a second; of the environment, what container network plugins are given.
    pub fn new(entry: Entry, hierarchy: Hierarchy) -> Self {
        RecorderOptions {
            entry,
            hierarchy,
            max_segments: 4096,
            ring_bytes: 1 << 20,
            tally: true,
            env: vec!["CNI_".to_owned()],
        }
    }
}

/// The recorder could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    #[error("birth recorder: cannot {step}: {source}")]
    Bpf { step: &'static str, source: libbpf_rs::Error },
    #[error("birth recorder: {0}")]
    Share(#[from] ShareError),
}

fn bpf(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> RecorderError {
    move |source| RecorderError::Bpf { step, source }
}

/// A segment that lives, as far as later events need it.
struct Open {
    id: SegmentId,
    slot: u32,
    parent_tgid: u32,
}

/// A segment that ended.
struct Past {
    id: SegmentId,
    key: Key,
    ended_ns: u64,
}

/// The loaded programs. Nothing is pinned: the kernel frees everything when this process ends.
pub struct Recorder<'obj> {
    skel: BirthSkel<'obj>,
    entry: Entry,
    tally: Option<Link>,
    links: Vec<Link>,
    /// Of the programs.
    names: Vec<Arc<str>>,
    ring: RingBuffer<'static>,
    arrived: Rc<RefCell<Vec<Event>>>,
    segments: SharedArray<segment>,
    open: HashMap<Key, Open>,
    /// Those, by their name.
    keys: HashMap<SegmentId, Key>,
    /// The latest segment of a process.
    latest: HashMap<u32, Key>,
    past: VecDeque<Past>,
    /// When the segment began that a slot was last given back by; tells a slot whose end got lost.
    released: Vec<u64>,
    suspects: Vec<(u32, u64)>,
    last_id: u64,
    events_lost: u64,
}

impl<'obj> Recorder<'obj> {
    /// Loads the programs and attaches none. `storage` holds the BPF object and must outlive the recorder.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(
        storage: &'obj mut MaybeUninit<OpenObject>,
        options: RecorderOptions,
    ) -> Result<Self, RecorderError> {
        let mut open = BirthSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.unified = options.hierarchy == Hierarchy::Unified;
            rodata.wake_bytes = u64::from(options.ring_bytes / 4);
        }
        let slots = options.max_segments + 1; // slot 0 is never handed out
        for map in [&mut open.maps.segments, &mut open.maps.slot_of_process, &mut open.maps.free_slots] {
            map.set_max_entries(slots).map_err(bpf("size a map"))?;
        }
        open.maps.events.set_max_entries(options.ring_bytes).map_err(bpf("size a map"))?;
        for program in to_load(&mut open.progs, options.entry) {
            program.set_autoload(true);
        }
        open.progs.tally_threads.set_autoload(options.tally);
        let skel = open.load().map_err(bpf("load the programs"))?;
        for slot in (1..slots).rev() {
            release(&skel, slot).map_err(bpf("fill the list of free slots"))?;
        }
        // Nothing runs by this link until someone reads from it.
        let tally = options.tally.then(|| skel.progs.tally_threads.attach()).transpose();
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let to = arrived.clone();
        let decoder = Decoder { hierarchy: options.hierarchy, env: options.env };
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&skel.maps.events, move |bytes| {
                to.borrow_mut().extend(decoder.event(bytes));
                0
            })
            .map_err(bpf("map the ring buffer"))?;
        Ok(Recorder {
            ring: builder.build().map_err(bpf("map the ring buffer"))?,
            arrived,
            segments: SharedArray::new(&skel.maps.segments)?,
            names: programs(&skel.progs, options.entry).map(cost::name).into(),
            skel,
            entry: options.entry,
            tally: tally.map_err(bpf("make an iterator over tasks"))?,
            links: Vec::new(),
            open: HashMap::default(),
            keys: HashMap::default(),
            latest: HashMap::default(),
            past: VecDeque::new(),
            released: vec![0; slots as usize],
            suspects: Vec::new(),
            last_id: 0,
            events_lost: 0,
        })
    }

    /// Begins to record; nothing happens if it does already.
    ///
    /// # Errors
    /// A program could not be attached; then none is.
    pub fn start(&mut self) -> Result<(), RecorderError> {
        if self.recording() {
            return Ok(());
        }
        // What a program still under way when the last recording stopped may have left.
        self.stop(&mut Vec::new());
        // Fork and exec begin segments: last, so that nothing of a segment is missed.
        let attached: Result<Vec<Link>, _> =
            programs(&self.skel.progs, self.entry).into_iter().rev().map(ProgramMut::attach).collect();
        self.links = attached.map_err(bpf("attach to the tracepoints"))?;
        Ok(())
    }

    /// Whether a recording is on.
    pub fn recording(&self) -> bool {
        !self.links.is_empty()
    }

    /// Ends the recording: appends what is left of it, and the end of every segment that lives.
    pub fn stop(&mut self, out: &mut Vec<Record>) {
        while self.links.pop().is_some() {}
        self.drain(out);
        self.tally();
        let open: Vec<SegmentId> = self.open.values().map(|open| open.id).collect();
        for id in open {
            self.let_go(id, out);
        }
        self.sweep(out);
        self.sweep(out);
        self.latest.clear();
    }

    /// Appends what happened since the last call. To be called some times a second while a recording is on, and
    /// when [`Recorder::fd`] is readable.
    pub fn drain(&mut self, out: &mut Vec<Record>) {
        // An error is EINTR or the like: what is left comes with the next call.
        let _ = self.ring.consume();
        let mut arrived = self.arrived.take();
        for event in arrived.drain(..) {
            self.take(event, out);
        }
        *self.arrived.borrow_mut() = arrived;
        let lost = self.losses().events;
        if std::mem::replace(&mut self.events_lost, lost) != lost || !self.suspects.is_empty() {
            self.sweep(out);
        }
    }

    fn take(&mut self, event: Event, out: &mut Vec<Record>) {
        let Event { head, what } = event;
        let (tgid, start_ns) = head.key;
        match what {
            What::Forked { slot, parent, place } => {
                let parent_id = self.open.get(&parent).map(|parent| parent.id);
                let id = self.open(head.key, slot, parent.0);
                out.push(Record::Began(Segment {
                    id,
                    parent: parent_id.or_else(|| self.ended(parent)),
                    begun: Begun::Fork,
                    start_ns,
                    tgid,
                    parent_tgid: parent.0,
                    comm: head.comm,
                    exe: None,
                    file: None,
                    args: Vec::new(),
                    args_cut: false,
                    env: Default::default(),
                    env_cut: false,
                    uid: None,
                    place,
                }));
            }
            What::Execed(execed) => {
                let prior = execed.prior.and_then(|(key, slot)| {
                    let open = self.open.get(&key).map(|open| (open.id, open.parent_tgid));
                    self.close(key, slot, start_ns, End::Exec, execed.place, out);
                    open
                });
                if execed.slot == 0 {
                    return; // counted where it happened
                }
                let parent_tgid = prior.map_or(execed.parent_tgid, |(_, parent_tgid)| parent_tgid);
                let id = self.open(head.key, execed.slot, parent_tgid);
                out.push(Record::Began(Segment {
                    id,
                    parent: prior.map(|(id, _)| id),
                    begun: Begun::Exec,
                    start_ns,
                    tgid,
                    parent_tgid,
                    comm: head.comm,
                    exe: execed.exe,
                    file: execed.file,
                    args: execed.args,
                    args_cut: execed.args_cut,
                    env: execed.env,
                    env_cut: execed.env_cut,
                    uid: Some(execed.uid),
                    place: execed.place,
                }));
            }
            What::Ended { slot, how, place } => self.close(head.key, slot, head.at_ns, how, place, out),
            What::Wrote(mut wrote) => {
                wrote.by.segment = self.id(head.key);
                out.push(Record::CgroupWrite(wrote));
            }
            What::Listened(mut listen) => {
                listen.by.segment = self.id(head.key);
                out.push(Record::Listen(listen));
            }
        }
    }

    fn open(&mut self, key: Key, slot: u32, parent_tgid: u32) -> SegmentId {
        self.last_id += 1;
        let id = SegmentId(self.last_id);
        // Of one whose end was lost the name goes too.
        if let Some(lost) = self.open.insert(key, Open { id, slot, parent_tgid }) {
            self.keys.remove(&lost.id);
        }
        self.keys.insert(id, key);
        self.latest.insert(key.0, key);
        id
    }

    /// A segment is over: its counters are read and its slot is free again.
    fn close(&mut self, key: Key, slot: u32, at_ns: u64, how: End, place: Place, out: &mut Vec<Record>) {
        let raw = self.segments.get(slot as usize);
        let live = how == End::Stopped && self.tallied(&raw);
        self.give_back(slot, key.1);
        let Some(open) = self.open.remove(&key) else {
            return; // its beginning was lost, and counted
        };
        self.keys.remove(&open.id);
        if self.latest.get(&key.0) == Some(&key) {
            self.latest.remove(&key.0);
        }
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back(Past { id: open.id, key, ended_ns: at_ns });
        out.push(Record::Ended(Ended {
            segment: open.id,
            tgid: key.0,
            at_ns,
            how,
            place,
            counters: counters(&raw, live),
        }));
    }

    fn give_back(&mut self, slot: u32, start: u64) {
        if let Some(released) = self.released.get_mut(slot as usize) {
            *released = start;
            // Cannot fail: there is room for every slot. If it did, there would be one less.
            let _ = release(&self.skel, slot);
        }
    }

    /// Finds slots whose segment ended without an event for it, because the ring buffer was full.
    fn sweep(&mut self, out: &mut Vec<Record>) {
        let before = std::mem::take(&mut self.suspects);
        for slot in 1..self.segments.len() as u32 {
            let start = self.segments.first_word(slot as usize);
            if start == 0 || start == self.released[slot as usize] {
                continue;
            }
            let raw = self.segments.get(slot as usize);
            if raw.ended == 0 {
                continue;
            }
            // The event may be about to come: it has until the next look.
            if before.contains(&(slot, start)) {
                self.close((raw.tgid, start), slot, raw.ended, End::Unknown, Place::default(), out);
            } else {
                self.suspects.push((slot, start));
            }
        }
    }

    /// The segment of these, if it is known.
    fn id(&self, key: Key) -> Option<SegmentId> {
        self.open.get(&key).map(|open| open.id).or_else(|| self.ended(key))
    }

    fn ended(&self, key: Key) -> Option<SegmentId> {
        // Most of all forks are by processes that have no segment.
        if key.1 == 0 {
            return None;
        }
        self.past.iter().rev().find(|past| past.key == key).map(|past| past.id)
    }

    /// The segment that a process was in at a time, if it is known.
    pub fn segment_at(&self, tgid: u32, at_ns: u64) -> Option<SegmentId> {
        let latest = self.latest.get(&tgid).filter(|key| key.1 <= at_ns);
        latest.and_then(|key| self.open.get(key)).map(|open| open.id).or_else(|| {
            let mut past = self.past.iter().rev();
            past.find(|p| p.key.0 == tgid && p.key.1 <= at_ns && at_ns <= p.ended_ns).map(|p| p.id)
        })
    }

    /// What a segment that lives did so far. Its waiting, bytes and faults are as of the last [`Recorder::tally`]; without
    /// one they are those of its threads that ended.
    pub fn counters(&self, id: SegmentId) -> Option<Counters> {
        let open = self.open.get(self.keys.get(&id)?)?;
        let raw = self.segments.get(open.slot as usize);
        Some(counters(&raw, self.tallied(&raw)))
    }

    /// Adds up what the threads that live have done, for [`Recorder::counters`] and segments that are let go. A walk over
    /// all threads of this host.
    pub fn tally(&mut self) {
        let (Some(link), Some(data)) = (&self.tally, self.skel.maps.bss_data.as_mut()) else {
            return;
        };
        data.tally += 1;
        let run = libbpf_rs::Iter::new(link).map_err(std::io::Error::other);
        if let Err(error) = run.and_then(|mut run| std::io::copy(&mut run, &mut std::io::sink())) {
            warn!("birth recorder: threads that live are not counted: {error}");
        }
    }

    /// The tally is of this segment as it is: no thread of it ended since.
    fn tallied(&self, raw: &segment) -> bool {
        let tally = self.skel.maps.bss_data.as_deref().map_or(0, |data| data.tally);
        raw.tally == tally && tally != 0 && raw.tally_ended == raw.threads_ended
    }

    /// Follows a segment no longer, because whoever asked has seen enough: appends its end ([`End::Stopped`], with counters
    /// as of the last tally), and its room is free again. What it forks later is recorded, without a parent.
    pub fn let_go(&mut self, id: SegmentId, out: &mut Vec<Record>) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        let Some(slot) = self.open.get(&key).map(|open| open.slot) else { return };
        // Who deletes it from the map, ends it: it may exit just now.
        if self.skel.maps.slot_of_process.delete(&key.0.to_ne_bytes()).is_ok() {
            self.unfollow(key.0);
            self.close(key, slot, clock::now(), End::Stopped, Place::default(), out);
        }
    }

    /// Takes a process out of the filter before the map, as the programs do.
    fn unfollow(&mut self, tgid: u32) {
        let Some(data) = self.skel.maps.bss_data.as_mut() else {
            return;
        };
        let place = tgid as usize & (data.followed.len() - 1);
        // SAFETY: a whole, aligned u32 of a mapping that lives as long as `self`; BPF changes it by atomics alone.
        unsafe { AtomicU32::from_ptr(&raw mut data.followed[place]) }.fetch_sub(1, Ordering::Relaxed);
    }

    /// Segments that are followed now: each has a place of the room that there is.
    pub fn following(&self) -> usize {
        self.open.len()
    }

    /// Readable when much waits to be drained.
    pub fn fd(&self) -> i32 {
        self.ring.epoll_fd()
    }

    /// What was lost so far. [`BirthLosses::cgroups`] is not the recorder's to know.
    pub fn losses(&self) -> BirthLosses {
        self.skel.maps.bss_data.as_deref().map_or_else(BirthLosses::default, |data| {
            // SAFETY: whole, aligned u64s of a mapping that lives as long as `self`; BPF writes them meanwhile.
            let read = |field: &u64| unsafe { std::ptr::from_ref(field).read_volatile() };
            BirthLosses {
                segments: read(&data.segments_lost),
                events: read(&data.events_lost),
                ..BirthLosses::default()
            }
        })
    }

    /// Appends what the programs cost so far (zero unless `kernel.bpf_stats_enabled` is set).
    pub fn costs(&self, out: &mut Vec<ProgramCost>) {
        let programs = programs(&self.skel.progs, self.entry).into_iter().zip(&self.names);
        out.extend(programs.filter_map(|(program, name)| cost::of(program, name)));
    }
}

/// Lets a slot be handed out.
fn release(skel: &BirthSkel<'_>, slot: u32) -> libbpf_rs::Result<()> {
    skel.maps.free_slots.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
}
