//! Kills by BPF programs.

use std::cell::RefCell;
use std::iter;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, OpenObject, RingBuffer, RingBufferBuilder};

use super::kill::{Asker, Kill, Limit, Place, Sizes, Victim};
use crate::kernel::cgroups::name;
use crate::kernel::cpus::Possible;
use crate::kernel::shared::{Wire, decode, until_nul};
use crate::kernel::{ProgramCost, cost};

skeleton!(skel, "oom");
use skel::types::{oom_event, oom_path};
use skel::{OomSkel, OomSkelBuilder};

// SAFETY: integers alone, a u64 first.
unsafe impl Wire for oom_event {}

/// `NONE` in bpf/oom.bpf.c.
const NONE: u32 = u32::MAX;

/// Room for each name of a path there.
const NAME_LEN: usize = 128;

/// The victims of a group follow each other within the kernel's walk over its processes: some µs each.
const NEXT_OF_GROUP: Duration = Duration::from_millis(50);

/// The programs could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
#[error("OOM kills: cannot {step}: {source}")]
pub struct OomError {
    step: &'static str,
    source: libbpf_rs::Error,
}

fn bpf(step: &'static str) -> impl FnOnce(libbpf_rs::Error) -> OomError {
    move |source| OomError { step, source }
}

/// The attached programs.
pub struct Watch<'obj> {
    skel: OomSkel<'obj>,
    by_signal: bool,
    _links: Vec<Link>,
    names: [Arc<str>; 2],
    ring: RingBuffer<'static>,
    arrived: Rc<RefCell<Vec<Told>>>,
    /// A group that may have more victims, and when the last of them was killed.
    group: Option<(Told, u64)>,
}

/// A kill, and what makes another the same one.
#[derive(Debug)]
struct Told {
    kill: Kill,
    /// Of a group: its path, who asked, and the count at the limit.
    same: Option<(Option<String>, u32, u64)>,
}

impl<'obj> Watch<'obj> {
    /// Loads and attaches. `by_signal`: this kernel names a victim by its pid alone, so that the signals are watched too.
    ///
    /// # Errors
    /// What the kernel refused, with its errno; nothing stays loaded.
    pub fn load(storage: &'obj mut MaybeUninit<OpenObject>, by_signal: bool) -> Result<Self, OomError> {
        let mut open = OomSkelBuilder::default().open(storage).map_err(bpf("open the BPF object"))?;
        open.progs.oom_signal.set_autoload(by_signal);
        let cpus = Possible::read().map_err(|error| bpf("count the CPUs")(error.into()))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            (rodata.cpus_end, rodata.possible_cpus) = (cpus.end(), cpus.bits());
        }
        let skel = open.load().map_err(bpf("load the programs"))?;
        let programs = &skel.progs;
        let names = [&programs.oom_victim, &programs.oom_signal].map(cost::name);
        let mut links = Vec::new();
        // First what comes first: a victim of which there was no signal would be left out.
        if by_signal {
            links.push(programs.oom_signal.attach().map_err(bpf("attach to signal_generate"))?);
        }
        links.push(programs.oom_victim.attach().map_err(bpf("attach to mark_victim"))?);
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let to = arrived.clone();
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&skel.maps.events, move |bytes| {
                to.borrow_mut().extend(decode(bytes).as_ref().map(told));
                0
            })
            .map_err(bpf("map the ring buffer"))?;
        let ring = builder.build().map_err(bpf("map the ring buffer"))?;
        Ok(Watch { skel, by_signal, _links: links, names, ring, arrived, group: None })
    }

    /// Readable when there were kills.
    pub fn fd(&self) -> RawFd {
        self.ring.epoll_fd()
    }

    /// Kills that did not fit the ring buffer, since loading.
    pub fn lost(&self) -> u64 {
        self.skel.maps.bss_data.as_deref().map_or(0, |data| {
            // SAFETY: a whole, aligned u64 of a mapping that lives as long as `self`; BPF writes it meanwhile.
            unsafe { (&raw const data.events_lost).read_volatile() }
        })
    }

    /// Appends what the programs cost so far (zero unless `kernel.bpf_stats_enabled` is set).
    pub fn costs(&self, out: &mut Vec<ProgramCost>) {
        let programs = [(&self.skel.progs.oom_victim, true), (&self.skel.progs.oom_signal, self.by_signal)];
        let loaded = programs.into_iter().zip(&self.names).filter(|((_, loaded), _)| *loaded);
        out.extend(loaded.filter_map(|((program, _), name)| cost::of(program, name)));
    }

    /// Appends the kills up to `now` (CLOCK_MONOTONIC, ns).
    pub fn take(&mut self, now: u64, out: &mut Vec<Kill>) {
        // An error is EINTR or the like: what is left comes with the next call.
        let _ = self.ring.consume();
        let mut arrived = self.arrived.take();
        for next in arrived.drain(..) {
            if let Some((first, last_ns)) = &mut self.group
                && first.same == next.same
                && next.kill.at_ns.saturating_sub(*last_ns) < NEXT_OF_GROUP.as_nanos() as u64
            {
                *last_ns = next.kill.at_ns;
                first.kill.kills += 1;
                first.kill.victims.extend(next.kill.victims);
                continue;
            }
            out.extend(self.group.take().map(|(told, _)| told.kill));
            match next.same {
                Some(_) => {
                    let last_ns = next.kill.at_ns;
                    self.group = Some((next, last_ns));
                }
                None => out.push(next.kill),
            }
        }
        *self.arrived.borrow_mut() = arrived;
        if self.patience(now) == Some(Duration::ZERO) {
            out.extend(self.group.take().map(|(told, _)| told.kill));
        }
    }

    /// How long until the group that is being killed is complete.
    pub fn patience(&self, now: u64) -> Option<Duration> {
        let (_, last_ns) = self.group.as_ref()?;
        Some(NEXT_OF_GROUP.saturating_sub(Duration::from_nanos(now.saturating_sub(*last_ns))))
    }
}

fn told(raw: &oom_event) -> Told {
    let page = rustix::param::page_size() as u64;
    // The kernel's sums are rough in between: a count may be a little below zero.
    let bytes = |pages: i64| u64::try_from(pages).unwrap_or(0).saturating_mul(page);
    let group = (raw.group != NONE).then(|| path(&raw.victim, raw.group));
    let limit = match raw.limit {
        NONE => Limit::Node,
        level => Limit::Cgroup {
            path: path(&raw.victim, level),
            used: raw.usage.saturating_mul(page),
            max: raw.max.saturating_mul(page),
            with_swap: raw.with_swap != 0,
        },
    };
    let victim = Victim {
        tgid: raw.tgid,
        comm: text(&raw.comm),
        uid: raw.uid,
        score_adj: raw.score_adj,
        sizes: Sizes {
            anon: bytes(raw.anon),
            file: bytes(raw.file),
            shmem: bytes(raw.shmem),
            swap: bytes(raw.swap),
        },
        first: (raw.nested != 0).then_some(raw.first != 0),
    };
    let whole = Place { path: path(&raw.victim, 0), cpu: raw.cpu_cgroup, unified: raw.unified_cgroup };
    let by = Place { path: path(&raw.by, 0), ..Place::default() };
    Told {
        same: group.clone().map(|group| (group, raw.by_tid, raw.ooms)),
        kill: Kill {
            at_ns: raw.at,
            // One that is the victim's own has its ids, too.
            place: match group.clone().flatten().filter(|_| raw.group > 0) {
                Some(path) => Place { path: Some(path), ..Place::default() },
                None => whole,
            },
            victims: vec![victim],
            kills: 1,
            group: group.is_some(),
            limit,
            asker: Some(Asker {
                tgid: raw.by_tgid,
                comm: text(&raw.by_comm),
                place: by,
                kernel: raw.by_kernel != 0,
                // A charge that does not fit leaves the usage within the limit.
                lowered: raw.by_outside != 0 && raw.by_kernel == 0 && raw.usage > raw.max,
            }),
        },
    }
}

fn text(comm: &[i8]) -> String {
    until_nul(&comm.iter().map(|c| *c as u8).collect::<Vec<_>>())
}

/// The path of the cgroup so many levels above; `None` if not all of it is there.
fn path(of: &oom_path, level: u32) -> Option<String> {
    if of.cut != 0 {
        return None;
    }
    let names = of.names.chunks_exact(NAME_LEN).take(of.levels as usize).skip(level as usize);
    let name_of = |one: &[i8]| one.iter().map(|c| *c as u8).take_while(|b| *b != 0).collect::<Vec<_>>();
    let path: Vec<u8> = names.rev().flat_map(|one| iter::once(b'/').chain(name_of(one))).collect();
    Some(if path.is_empty() { "/".to_owned() } else { name::text(&path).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(names: &[&[u8]]) -> oom_path {
        let mut path = oom_path { levels: names.len() as u32, ..oom_path::default() };
        // From the cgroup up.
        for (room, name) in path.names.chunks_exact_mut(NAME_LEN).zip(names.iter().rev()) {
            room.iter_mut().zip(*name).for_each(|(to, from)| *to = *from as i8);
        }
        path
    }

    /// As the readings of the tree have it, or the workload would not be found by it.
    #[test]
    fn a_path_is_the_text_that_the_tree_has_for_it_whatever_its_bytes() {
        let of = below(&[b"system.slice", b"caf\xe9", b"a\\xe9\t"]);
        let whole = path(&of, 0).expect("all of it");
        assert_eq!(whole, "/system.slice/caf\\xe9/a\\x5cxe9\\x09");
        assert_eq!(*name::bytes(&whole), b"/system.slice/caf\xe9/a\\xe9\t"[..]);
        assert_eq!(path(&of, 1).as_deref(), Some("/system.slice/caf\\xe9"));
        assert_eq!(path(&of, 3).as_deref(), Some("/"));
        assert_eq!(path(&oom_path { cut: 1, ..of }, 0), None);
    }
}
