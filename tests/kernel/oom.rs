//! Each kill for lack of memory is told once, with its victim, its limit and who asked for the memory. What they are compared with:
//! how the victims ended, what they had eaten by their own count, and the kernel's count in the group's file.

use std::mem::MaybeUninit;

use kernel_gossip::kernel::facts::{Facts, FactsOptions};
use kernel_gossip::kernel::oom::{Asker, Kill, Limit, Oom, OomOptions, OomProbe};
use kernel_gossip::kernel::{Kind, Probe, plan};
use libbpf_rs::OpenObject;
use rustix::event::{PollFd, PollFlags, poll};

use crate::bed::cgroup::pin;
use crate::bed::cpus::{possible_cpus, with_possible_cpus};
use crate::bed::hungry::{EATER, Eater, Group, MIB, USER};
use crate::bed::{PATIENCE, emulated, until};

/// Kills in a row; an emulated machine takes a second for each.
const KILLS: usize = 100;
const KILLS_IN_GUESTS: usize = 10;

fn options() -> OomOptions {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let facts = FactsOptions { ask_kubernetes: false, ..FactsOptions::default() };
    let facts = runtime.block_on(Facts::gather(&facts));
    let planned = plan::plan(&facts).oom;
    assert!(planned.shortfalls().is_empty(), "{planned:?}");
    Oom::options(&facts, planned.hook(), 0).expect("what to load")
}

/// The probe, and the kills in the groups of one test.
struct Watched<'obj> {
    probe: OomProbe<'obj>,
    below: String,
    kills: Vec<Kill>,
}

impl<'obj> Watched<'obj> {
    fn new(storage: &'obj mut MaybeUninit<OpenObject>, group: &Group) -> Self {
        let probe = OomProbe::load(storage, options()).expect("it loads");
        Watched { probe, below: group.path(), kills: Vec::new() }
    }

    fn look(&mut self) {
        self.probe.take(&mut self.kills);
        let ours = |kill: &Kill| kill.place.path.as_ref().is_some_and(|path| path.starts_with(&self.below));
        self.kills.retain(ours);
    }

    /// Waits until there are so many kills.
    fn told(&mut self, kills: usize) -> &[Kill] {
        until(&format!("{kills} kills"), || {
            self.look();
            if self.kills.len() >= kills {
                return Some(());
            }
            // Another test's kill is not ours: the poll may end without one.
            let wait = self.probe.patience().unwrap_or(PATIENCE / 10);
            let fd = self.probe.fd().expect("a descriptor");
            // SAFETY: the probe's, which lives.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let wait = rustix::event::Timespec::try_from(wait).expect("a time");
            poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait)).expect("polled");
            None
        });
        &self.kills
    }

    fn lost(&self) -> u64 {
        let mut lost = Vec::new();
        self.probe.losses(&mut lost);
        lost.iter().map(|lost| lost.total).sum()
    }
}

fn asker(kill: &Kill) -> &Asker {
    kill.asker.as_ref().expect("who asked")
}

#[track_caller]
fn hit(kill: &Kill, group: &Group, limit: u64) {
    match &kill.limit {
        Limit::Cgroup { path, used, max, with_swap: false } => {
            assert_eq!((path.as_deref(), *max), (Some(&*group.path()), limit), "{kill:?}");
            // A page at a time, so that it is full to the page. On an emulated CPU it takes the kernel so long to choose whom to
            // kill that memory of those who ended before comes back meanwhile.
            let less = if emulated() { max / 16 } else { 8 * 4096 };
            assert!(*used + less > *max, "{kill:?}");
        }
        other => panic!("{other:?}: {kill:?}"),
    }
}

/// What a process held by the probe's count and by its own, within these bytes: between its own look and its end it may have
/// touched a page of its stack or copied one of its parent's.
const SLACK: u64 = 64 << 10;

/// The same before 6.2, where each thread has up to 64 pages that its process does not count yet (TASK_RSS_EVENTS_THRESH).
fn slack() -> u64 {
    let exact = procfs::KernelVersion::current().expect("version") >= procfs::KernelVersion::new(6, 2, 0);
    if exact { SLACK } else { SLACK + 64 * 4096 }
}

#[test]
fn kills_in_a_row_are_told_once_each_with_victim_limit_and_who_asked() {
    a_row_of(if emulated() { KILLS_IN_GUESTS } else { KILLS }, "oomrow");
}

/// Numbers of CPUs may be left out: sizes are summed over those that there are, by number and not by how many they are.
#[test]
fn sizes_are_summed_over_the_cpus_that_there_are_by_number() {
    if possible_cpus() < 2 {
        return;
    }
    with_possible_cpus("1", || {
        // All that the victims touch, and are born with, is counted there.
        pin(1).expect("pinned");
        a_row_of(KILLS_IN_GUESTS, "oomholes");
    });
}

fn a_row_of(kills: usize, name: &str) {
    let group = Group::new(name);
    group.limit(16 * MIB);
    let mut storage = MaybeUninit::uninit();
    let mut watched = Watched::new(&mut storage, &group);
    let mut expected = Vec::new();
    for i in 0..kills {
        let mut eater = Eater::start(&group);
        let adj = 100 + i as i32;
        eater.score_adj(adj);
        let before = eater.anonymous();
        eater.eat(64 * MIB);
        assert_eq!(eater.ends(), libc::SIGKILL);
        expected.push((eater.pid as u32, adj, before + eater.eaten()));
        // A ring holds some 180.
        watched.look();
    }
    assert_eq!(group.kills(), kills as u64, "the kernel's count");
    watched.told(kills);
    watched.look();
    assert_eq!((watched.kills.len(), watched.lost()), (kills, 0));
    let mut worst = 0;
    for (kill, (pid, adj, held)) in watched.kills.iter().zip(&expected) {
        let [victim] = &kill.victims[..] else { panic!("{kill:?}") };
        assert_eq!((victim.tgid, &*victim.comm, victim.uid, victim.score_adj), (*pid, EATER, USER, *adj));
        assert_eq!((victim.first, kill.kills, kill.group), (None, 1, false), "{kill:?}");
        assert_eq!(kill.place.path.as_deref(), Some(&*group.path()));
        hit(kill, &group, 16 * MIB);
        let by = asker(kill);
        assert_eq!((by.tgid, &*by.comm, by.lowered, by.kernel), (*pid, EATER, false, false), "{kill:?}");
        worst = worst.max(victim.sizes.anon.abs_diff(*held));
        assert!(victim.sizes.anon.abs_diff(*held) <= slack(), "{held}: {kill:?}");
    }
    println!("{kills} kills, {kills} told; size at most {worst} bytes from the victims' own count");
}

/// The kernel takes who holds most: the parent lives, and nothing else would say that its child does not.
#[test]
fn a_child_is_told_whose_parent_lives() {
    let group = Group::new("oomchild");
    group.limit(24 * MIB);
    let mut storage = MaybeUninit::uninit();
    let mut watched = Watched::new(&mut storage, &group);
    let mut parent = Eater::first_of_a_namespace(&group);
    parent.hold(4 * MIB);
    let mut child = Eater::start(&group);
    child.eat(64 * MIB);
    assert_eq!(child.ends(), libc::SIGKILL);
    let [kill] = watched.told(1) else { panic!("{:?}", watched.kills) };
    assert_eq!(kill.victims[0].tgid, child.pid as u32);
    parent.hold(MIB); // it does

    // The first of a PID namespace takes its container with it.
    parent.eat(64 * MIB);
    assert_eq!(parent.ends(), libc::SIGKILL);
    let kill = &watched.told(2)[1];
    assert_eq!((kill.victims[0].tgid, kill.victims[0].first), (parent.pid as u32, Some(true)));
}

#[test]
fn a_group_is_one_kill_with_all_its_victims() {
    let group = Group::new("oomgroup");
    if !group.unified {
        println!("cgroup v1 kills no groups");
        return;
    }
    group.limit(24 * MIB);
    group.write("memory.oom.group", "1");
    let mut storage = MaybeUninit::uninit();
    let mut watched = Watched::new(&mut storage, &group);
    let mut others = [Eater::start(&group), Eater::start(&group)];
    others.iter_mut().for_each(|other| other.hold(MIB));
    let mut greedy = Eater::start(&group);
    greedy.eat(64 * MIB);
    let mut all = vec![greedy.pid as u32];
    assert_eq!(greedy.ends(), libc::SIGKILL);
    for other in &mut others {
        all.push(other.pid as u32);
        assert_eq!(other.ends(), libc::SIGKILL);
    }
    let [kill] = watched.told(1) else { panic!("{:?}", watched.kills) };
    let mut victims: Vec<_> = kill.victims.iter().map(|victim| victim.tgid).collect();
    victims.sort_unstable();
    all.sort_unstable();
    assert_eq!((victims, kill.kills, kill.group), (all, 3, true));
    assert_eq!(kill.place.path.as_deref(), Some(&*group.path()));
    hit(kill, &group, 24 * MIB);
    watched.look();
    assert_eq!((watched.kills.len(), watched.lost()), (1, 0));
}

#[test]
fn a_pods_limit_may_be_hit_by_its_other_container() {
    let pod = Group::new("oompod");
    let (large, asking) = (pod.child("large"), pod.child("asking"));
    pod.limit(48 * MIB);
    large.limit(256 * MIB);
    let mut storage = MaybeUninit::uninit();
    let mut watched = Watched::new(&mut storage, &pod);
    let (mut victim, mut other) = (Eater::start(&large), Eater::start(&asking));
    victim.hold(36 * MIB);
    // There is room once the victim is gone; a slow machine may take the next one before it has back what that held.
    other.eat(18 * MIB);
    assert_eq!(victim.ends(), libc::SIGKILL);
    let [kill, ..] = watched.told(1) else { panic!("{:?}", watched.kills) };
    assert_eq!(kill.victims[0].tgid, victim.pid as u32);
    assert_eq!(kill.place.path.as_deref(), Some(&*large.path()));
    hit(kill, &pod, 48 * MIB);
    let by = asker(kill);
    assert_eq!(
        (by.tgid, by.place.path.as_deref(), by.lowered),
        (other.pid as u32, Some(&*asking.path()), false)
    );
    assert_eq!(large.kills(), 1);
}

#[test]
fn a_limit_that_is_lowered_below_what_is_held_is_told_as_that() {
    let group = Group::new("oomlow");
    if !group.unified {
        println!("cgroup v1 refuses to lower a limit below what is held");
        return;
    }
    group.limit(64 * MIB);
    let mut storage = MaybeUninit::uninit();
    let mut watched = Watched::new(&mut storage, &group);
    let mut eater = Eater::start(&group);
    eater.hold(32 * MIB);
    group.limit(8 * MIB);
    assert_eq!(eater.ends(), libc::SIGKILL);
    let [kill] = watched.told(1) else { panic!("{:?}", watched.kills) };
    assert_eq!(kill.victims[0].tgid, eater.pid as u32);
    hit(kill, &group, 8 * MIB);
    let by = asker(kill);
    assert!(by.lowered && by.tgid == std::process::id(), "{kill:?}");
}
