//! Events of `bpf/birth.bpf.c`, from the ring buffer's bytes to owned data.

use std::collections::BTreeMap;

use super::By;
use super::record::{CgroupWrite, Counters, End, Family, Listen, Namespaces, Place};
use super::skel::types::{
    birth_ended, birth_event, birth_execed, birth_forked, birth_listened, birth_wrote, place, segment,
};
use crate::kernel::Hierarchy;
use crate::kernel::shared::{Wire, decode, until_nul};

// SAFETY: integers alone, u64 first (generated from bpf/birth.bpf.c's own BTF).
unsafe impl Wire for birth_event {}
// SAFETY: as above.
unsafe impl Wire for birth_forked {}
// SAFETY: as above.
unsafe impl Wire for birth_execed {}
// SAFETY: as above.
unsafe impl Wire for birth_ended {}
// SAFETY: as above.
unsafe impl Wire for birth_wrote {}
// SAFETY: as above.
unsafe impl Wire for birth_listened {}
// SAFETY: as above.
unsafe impl Wire for segment {}

/// Names a segment as the BPF programs do: process and when it began. 0 is no segment.
pub type Key = (u32, u64);

/// What every event begins with.
pub struct Head {
    pub at_ns: u64,
    pub key: Key,
    pub comm: String,
}

pub struct Event {
    pub head: Head,
    pub what: What,
}

/// What happened. A segment is one program's life in one process (see [`Segment`](super::record::Segment)): a fork begins one, an exec ends
/// one and begins the next, an exit ends the last.
pub enum What {
    Forked { slot: u32, parent: Key, place: Place },
    Execed(Box<Execed>),
    Ended { slot: u32, how: End, place: Place },
    Wrote(CgroupWrite),
    Listened(Listen),
}

/// A process begins to run a program, and what is known of it then.
pub struct Execed {
    pub slot: u32,
    /// The segment before it, and its slot.
    pub prior: Option<(Key, u32)>,
    pub parent_tgid: u32,
    pub exe: Option<String>,
    pub file: Option<String>,
    pub args: Vec<String>,
    pub args_cut: bool,
    pub env: BTreeMap<String, String>,
    pub env_cut: bool,
    pub uid: u32,
    pub place: Place,
}

/// What is kept of an event beyond its own bytes.
pub struct Decoder {
    /// The tree of [`Place::cgroup`].
    pub hierarchy: Hierarchy,
    /// What the names of variables that are kept begin with: an environment may hold secrets.
    pub env: Vec<String>,
}

impl Decoder {
    /// The event in a ring buffer's bytes; `None` if they are none this program knows.
    pub fn event(&self, bytes: &[u8]) -> Option<Event> {
        let head = decode::<birth_event>(bytes)?;
        let what = match head.kind {
            1 => {
                let e = decode::<birth_forked>(bytes)?;
                let parent = (e.parent_tgid, e.parent_start);
                What::Forked { slot: e.slot, parent, place: self.place(&e.place) }
            }
            2 => What::Execed(Box::new(self.execed(&decode(bytes)?))),
            3 => {
                let e = decode::<birth_ended>(bytes)?;
                What::Ended { slot: e.slot, how: end(e.exit_code), place: self.place(&e.place) }
            }
            4 => {
                let e = decode::<birth_wrote>(bytes)?;
                What::Wrote(CgroupWrite {
                    by: by(&head),
                    hierarchy_id: e.hierarchy,
                    cgroup: e.cgroup,
                    file: name(&e.file, e.file_len).unwrap_or_default(),
                })
            }
            5 => {
                let e = decode::<birth_listened>(bytes)?;
                let family = if e.family == libc::AF_INET as u32 { Family::Ipv4 } else { Family::Ipv6 };
                What::Listened(Listen { by: by(&head), family, port: e.port as u16 })
            }
            _ => return None,
        };
        let By { at_ns, comm, tgid, .. } = by(&head);
        Some(Event { head: Head { at_ns, key: (tgid, head.start), comm }, what })
    }

    fn execed(&self, e: &birth_execed) -> Execed {
        let args = &e.args[..(e.args_len as usize).min(e.args.len())];
        let env = &e.env[..(e.env_len as usize).min(e.env.len())];
        // The first one of a cut environment may be half a one.
        let env = words(env).skip(usize::from(e.cut & CUT_ENV != 0));
        // Most of an environment is not looked at any further.
        let kept = |variable: &&[u8]| self.env.iter().any(|prefix| variable.starts_with(prefix.as_bytes()));
        Execed {
            slot: e.slot,
            prior: (e.prior_slot != 0).then_some(((e.event.tgid, e.prior_start), e.prior_slot)),
            parent_tgid: e.parent_tgid,
            exe: name(&e.exe, e.exe_len),
            file: name(&e.file, e.file_len),
            args: strings(args).collect(),
            args_cut: e.cut & CUT_ARGS != 0,
            env: env
                .filter(kept)
                .filter_map(|variable| {
                    let variable = String::from_utf8_lossy(variable);
                    let (name, value) = variable.split_once('=')?;
                    Some((name.to_owned(), value.to_owned()))
                })
                .collect(),
            env_cut: e.cut & CUT_ENV != 0,
            uid: e.uid,
            place: self.place(&e.place),
        }
    }

    fn place(&self, raw: &place) -> Place {
        let namespaces = Namespaces {
            mnt: raw.mnt,
            uts: raw.uts,
            ipc: raw.ipc,
            pid: raw.pid,
            pid_for_children: raw.pid_for_children,
            net: raw.net,
            cgroup: raw.cgroup_ns,
            time: raw.time,
            user: raw.user,
        };
        Place {
            cgroup: (raw.cgroup != 0).then_some(raw.cgroup),
            hierarchy: (raw.cgroup != 0).then_some(self.hierarchy),
            namespaces: (namespaces != Namespaces::default()).then_some(namespaces),
            mounts: (raw.mounts != 0).then_some(raw.mounts),
        }
    }
}

const CUT_ARGS: u32 = 1;
const CUT_ENV: u32 = 2;

/// Who did it; the segment is filled in by who knows it.
fn by(head: &birth_event) -> By {
    By { at_ns: head.at, segment: None, tgid: head.tgid, comm: until_nul(&head.comm) }
}

/// An exit code as wait() has it (`man 2 wait`).
fn end(code: u32) -> End {
    match code & 0x7f {
        0 => End::Exit((code >> 8) as u8),
        signal => End::Signal(signal as u8),
    }
}

/// A name of so many bytes with its end; `None` if it could not be read.
fn name(bytes: &[u8], length: i32) -> Option<String> {
    (length > 0).then(|| until_nul(bytes))
}

/// Strings one after the other, each with its NUL (but the last, when cut).
fn strings(bytes: &[u8]) -> impl Iterator<Item = String> {
    words(bytes).map(|s| String::from_utf8_lossy(s).into_owned())
}

/// The same, as they are.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let none = bytes.is_empty();
    bytes.split(|b| *b == 0).filter(move |_| !none)
}

/// What a slot counts; with what its threads that live have done, if they were tallied (`live`).
pub fn counters(raw: &segment, live: bool) -> Counters {
    // Of a segment that lives: less than nothing, until its threads are added.
    let sum = |ended: u64, living: u64| {
        let all = if live { ended.wrapping_add(living) } else { ended };
        all.cast_signed().max(0).cast_unsigned()
    };
    let syscalls = raw.syscalls.iter().zip(0..).filter(|(count, _)| **count > 0);
    Counters {
        syscalls: syscalls.map(|(count, number)| (number, u64::from(*count))).collect(),
        foreign_syscalls: raw.foreign_syscalls,
        run_ns: raw.run,
        wait_ns: sum(raw.wait, raw.live_wait),
        read_bytes: sum(raw.read_bytes, raw.live_read_bytes),
        written_bytes: sum(raw.written_bytes, raw.live_written_bytes),
        minor_faults: sum(raw.minor_faults, raw.live_minor_faults),
        major_faults: sum(raw.major_faults, raw.live_major_faults),
        forks: raw.forks,
        threads: raw.threads_begun.saturating_sub(1),
        netfilter_changes: raw.netfilter_changes,
    }
}
