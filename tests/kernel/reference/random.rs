//! Random scenarios.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::load::{Class, Thread, Work};
use super::scene::{Action, Group, Limit, Scene, thread};

/// What the machine that plays a scenario can do.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub cpus: usize,
    /// cgroup v2: no threads beside groups, and the controller can be taken away.
    pub unified: bool,
    /// Real-time groups have budgets of their own.
    pub realtime_budgets: bool,
    pub realtime: bool,
    pub deadline: bool,
}

/// At most so many threads in a scenario.
const THREADS: usize = 64;

/// The scenario of a seed; on another stage it is another one.
pub fn scene(seed: u64, stage: Stage) -> Scene {
    let mut rng = StdRng::seed_from_u64(seed);
    let rng = &mut rng;
    let mut scene = Scene { length_ms: rng.random_range(1500..=2500), ..Scene::default() };
    for _ in 0..rng.random_range(1..=3) {
        grow(rng, &mut scene, None, 1);
    }
    let leaves: Vec<usize> =
        (0..scene.groups.len()).filter(|i| scene.groups.iter().all(|g| g.parent != Some(*i))).collect();
    let mut left = THREADS;
    for &leaf in &leaves {
        let threads = threads(rng, stage, left / 2);
        left -= threads.len();
        scene.groups[leaf].threads = threads;
    }
    if leaves.len() > 1 && rng.random_ratio(1, 3) {
        turns(rng, stage, &mut scene, &leaves);
    }
    if stage.realtime && rng.random_ratio(1, 6) {
        realtime(rng, stage, &mut scene);
    }
    if stage.deadline && rng.random_ratio(1, 6) {
        let period_us = rng.random_range(10_000..100_000);
        let class = Class::Deadline { runtime_us: period_us * rng.random_range(5..=30) / 100, period_us };
        scene.groups.push(Group::of(vec![Thread { class, ..thread(Work::Busy, None) }]));
    }
    actions(rng, stage, &mut scene, &leaves);
    scene
}

/// A group, and perhaps some below it.
fn grow(rng: &mut StdRng, scene: &mut Scene, parent: Option<usize>, depth: u32) {
    let here = scene.groups.len();
    scene.groups.push(Group {
        parent,
        limit: rng.random_ratio(1, 2).then(|| limit(rng)),
        shares: [None, Some(128), Some(512), Some(4096)].choose(rng).copied().flatten(),
        ..Group::default()
    });
    if depth < 3 && rng.random_ratio(1, 3) {
        for _ in 0..rng.random_range(1..=2) {
            grow(rng, scene, Some(here), depth + 1);
        }
    }
}

fn limit(rng: &mut StdRng) -> Limit {
    let period_us = 1000 * *[5, 10, 20, 50, 100, 100, 100, 200, 400].choose(rng).expect("periods");
    // The kernel takes no quota below a millisecond.
    let quota_us = (period_us * rng.random_range(3..=150) / 100).max(1000);
    let burst_us = if rng.random_ratio(1, 5) { rng.random_range(0..=quota_us) } else { 0 };
    Limit { quota_us, period_us, burst_us }
}

fn threads(rng: &mut StdRng, stage: Stage, most: usize) -> Vec<Thread> {
    let count = if rng.random_ratio(1, 5) { rng.random_range(8..=64) } else { rng.random_range(1..=6) };
    let together = rng.random_ratio(1, 3).then(|| rng.random_range(0..stage.cpus));
    let sleepy = rng.random_range(0..=2);
    let one = |_| {
        let work = if rng.random_ratio(sleepy, 3) {
            Work::Sleepy { work_us: rng.random_range(200..8000), idle_us: rng.random_range(1000..30_000) }
        } else {
            Work::Busy
        };
        let alone = rng.random_ratio(1, 4).then(|| rng.random_range(0..stage.cpus));
        thread(work, together.or(alone))
    };
    (0..count.clamp(1, most.max(1))).map(one).collect()
}

/// Threads of two groups that hand work to each other.
fn turns(rng: &mut StdRng, stage: Stage, scene: &mut Scene, leaves: &[usize]) {
    let work_us = rng.random_range(10..400);
    let cpu = rng.random_ratio(2, 3).then(|| rng.random_range(0..stage.cpus));
    let both: Vec<_> = leaves.sample(rng, 2).copied().collect();
    let ping = |read, write, first| thread(Work::Ping { read, write, work_us, first }, cpu);
    scene.groups[both[0]].threads.push(ping(0, 1, true));
    scene.groups[both[1]].threads.push(ping(1, 0, false));
}

/// A real-time group: always busy only where its budget ends that.
fn realtime(rng: &mut StdRng, stage: Stage, scene: &mut Scene) {
    let work = if stage.realtime_budgets && rng.random_ratio(1, 2) {
        Work::Busy
    } else {
        let work_us = rng.random_range(500..8000);
        Work::Sleepy { work_us, idle_us: work_us + rng.random_range(2000..30_000) }
    };
    let class = Class::Fifo { priority: rng.random_range(1..50) };
    let threads = vec![Thread { class, ..thread(work, rng.random_range(0..stage.cpus)) }];
    let realtime_us = Some(1000 * rng.random_range(200..=500));
    scene.groups.push(Group { realtime_us, ..Group::of(threads) });
}

fn actions(rng: &mut StdRng, stage: Stage, scene: &mut Scene, leaves: &[usize]) {
    let end = scene.length_ms - 100;
    let mut actions = Vec::new();
    if rng.random_ratio(1, 3) {
        let group = *leaves.choose(rng).expect("a leaf");
        let thread = rng.random_range(0..scene.groups[group].threads.len());
        let every = rng.random_range(15..=100);
        for i in 1..end / every {
            actions.push((i * every, Action::Move { group, thread, cpu: i as usize % stage.cpus }));
        }
    }
    if rng.random_ratio(1, 3) {
        let group = rng.random_range(0..scene.groups.len());
        // One that has a budget has no other.
        if scene.groups[group].realtime_us.is_none() {
            for _ in 0..rng.random_range(1..=3) {
                let limit = rng.random_ratio(2, 3).then(|| limit(rng));
                actions.push((rng.random_range(100..end), Action::Limit { group, limit }));
            }
        }
    }
    let parents: Vec<usize> = scene.groups.iter().filter_map(|group| group.parent).collect();
    let lowest = parents.iter().find(|p| {
        scene.groups.iter().enumerate().all(|(i, group)| group.parent != Some(**p) || !parents.contains(&i))
    });
    if let Some(&group) = lowest
        && stage.unified
        && rng.random_ratio(1, 2)
    {
        let off = rng.random_range(200..end - 500);
        let on = off + rng.random_range(100..400);
        // A limit of a group that has no controller cannot be set.
        actions.retain(|(_, action)| !matches!(action, Action::Limit { .. }));
        actions.push((off, Action::Controller { group, on: false }));
        actions.push((on, Action::Controller { group, on: true }));
        for (below, one) in scene.groups.iter().enumerate().filter(|(_, one)| one.parent == Some(group)) {
            actions.push((on, Action::Limit { group: below, limit: one.limit }));
        }
    }
    if !stage.unified && rng.random_ratio(1, 8) {
        let group = *leaves.choose(rng).expect("a leaf");
        actions.push((rng.random_range(100..end), Action::Rename { group }));
    }
    actions.sort_by_key(|(at, _)| *at);
    scene.actions = actions;
}

/// Whatever the seed, a scenario can be played.
#[test]
fn scenes_are_whole() {
    // An emulated CPU takes three milliseconds for each.
    for seed in 0..if crate::bed::emulated() { 200 } else { 2000 } {
        for (cpus, unified) in [(1, true), (2, false), (4, true)] {
            let stage = Stage { cpus, unified, realtime_budgets: !unified, realtime: true, deadline: true };
            let scene = scene(seed, stage);
            let groups = &scene.groups;
            let threads: usize = groups.iter().map(|group| group.threads.len()).sum();
            assert!((1..=THREADS + 8).contains(&threads), "{seed}: {threads} threads");
            assert!(groups.len() <= super::recorder::WATCHED, "{seed}: {} groups", groups.len());
            for (i, group) in groups.iter().enumerate() {
                assert!(group.parent.is_none_or(|parent| parent < i && groups[parent].threads.is_empty()));
                assert!(group.threads.iter().all(|thread| thread.cpu.is_none_or(|cpu| cpu < cpus)));
            }
            assert!(scene.actions.is_sorted_by_key(|(at, _)| *at));
            for (at, action) in &scene.actions {
                assert!(*at < scene.length_ms, "{seed}: {action:?} after the end");
                if let Action::Move { group, thread, cpu } = *action {
                    assert!(thread < groups[group].threads.len() && cpu < cpus, "{seed}: {action:?}");
                }
            }
        }
    }
}
