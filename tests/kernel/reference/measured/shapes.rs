//! Shapes in which figures were wrong once, each with its name.

use crate::bed::cgroup::{Version, cpu_tree};
use crate::bed::emulated;
use crate::kernel::cpu::alone;
use crate::kernel::reference::compare::{assert_right, is_right, too_slow};
use crate::kernel::reference::load::{Class, Thread, Work};
use crate::kernel::reference::scene::{Action, Group, Limit, Scene, busy, cpus, play, thread};

fn check(what: &str, scene: &Scene) {
    let _alone = alone();
    assert!(is_right(what, scene), "{what}: figures are wrong");
}

/// Two neighbours that hand work to each other: thousands of runs within one wait.
#[test]
fn neighbours_that_hand_work_to_each_other_are_named() {
    // An emulated CPU is shown one of each kind: a program takes it a second to start.
    let turns: &[u64] = if emulated() { &[28] } else { &[0, 28] };
    for &work_us in turns {
        let ping = |read, write, first| thread(Work::Ping { read, write, work_us, first }, 0);
        check(
            &format!("turns of {work_us} us"),
            &Scene {
                groups: vec![
                    Group::of(busy(1, 0)),
                    Group::of(vec![ping(0, 1, true)]).shares(4096),
                    Group::of(vec![ping(1, 0, false)]).shares(4096),
                ],
                length_ms: 3000,
                ..Scene::default()
            },
        );
    }
}

/// One thread is busy, another is not, on two CPUs: they are stopped at different moments of a period.
#[test]
fn stalls_of_unequal_threads_are_joined() {
    if cpus() < 2 {
        return println!("one CPU: nothing to join");
    }
    let sleepy = Work::Sleepy { work_us: 1000, idle_us: 19_000 };
    let threads = vec![thread(Work::Busy, 0), thread(sleepy, 1)];
    check(
        "a busy and a sleepy thread",
        &Scene { groups: vec![Group::of(threads).limit(30, 100)], length_ms: 4000, ..Scene::default() },
    );
}

/// A task that is throttled is taken to another CPU each 30 ms, and both have a neighbour.
#[test]
fn moved_while_throttled_is_still_throttled() {
    let victim = Group::of(busy(1, 0)).limit(5, 100);
    let neighbour = Group::of((0..cpus()).flat_map(|cpu| busy(1, cpu)).collect());
    let moves =
        (1..130).map(|i: usize| (i as u64 * 30, Action::Move { group: 0, thread: 0, cpu: i % cpus() }));
    check(
        "moved each 30 ms",
        &Scene { groups: vec![victim, neighbour], length_ms: 4000, actions: moves.collect() },
    );
}

/// More threads than a quota serves in a few periods: each waits through many stalls.
#[test]
fn threads_that_wait_through_many_stalls_are_throttled() {
    let counts: &[usize] = if emulated() { &[32] } else { &[8, 50] };
    for &threads in counts {
        check(
            &format!("{threads} threads beside a neighbour"),
            &Scene {
                groups: vec![Group::of(busy(threads, 0)).limit(10, 100), Group::of(busy(1, 0))],
                length_ms: 4000,
                ..Scene::default()
            },
        );
    }
    check(
        "32 threads alone",
        &Scene { groups: vec![Group::of(busy(32, 0)).limit(10, 100)], length_ms: 4000, ..Scene::default() },
    );
}

/// Each waits through two hundred runs of others.
#[test]
fn two_hundred_loops_on_a_cpu_are_each_others_neighbours() {
    check(
        "200 loops",
        &Scene {
            groups: (0..10).map(|_| Group::of(busy(20, 0))).collect(),
            length_ms: 4000,
            ..Scene::default()
        },
    );
}

/// A deadline task that has used its own budget, and a real-time group that has used its: nobody keeps them off the CPU.
#[test]
fn a_spent_budget_is_nobodys_fault() {
    let everywhere = || Group::of((0..cpus()).flat_map(|cpu| busy(1, cpu)).collect());
    let class = Class::Deadline { runtime_us: 10_000, period_us: 100_000 };
    let deadline = Group::of(vec![Thread { class, ..thread(Work::Busy, None) }]);
    check(
        "a deadline task beside loops",
        &Scene { groups: vec![deadline, everywhere(), everywhere()], length_ms: 3000, ..Scene::default() },
    );
    if !cpu_tree().mount.join("cpu.rt_runtime_us").exists() {
        return println!("real-time groups have no budgets here");
    }
    let class = Class::Fifo { priority: 10 };
    let realtime =
        Group { realtime_us: Some(400_000), ..Group::of(vec![Thread { class, ..thread(Work::Busy, 0) }]) };
    check(
        "a real-time group beside a loop",
        &Scene { groups: vec![realtime, Group::of(busy(1, 0))], length_ms: 3000, ..Scene::default() },
    );
}

/// Its queue and the queue's clock are new afterwards, while the cgroup is the same.
#[test]
fn the_controller_is_taken_away_and_given_back() {
    if cpu_tree().version == Version::V1 {
        return println!("cgroup v1: no group can lose its controller");
    }
    let limit = Limit::ms(20, 100);
    let below = Group { parent: Some(0), limit, ..Group::of(busy(1, 0)) };
    check(
        "the controller away and back",
        &Scene {
            groups: vec![Group::default(), below],
            length_ms: 6000,
            actions: vec![
                (2500, Action::Controller { group: 0, on: false }),
                (3500, Action::Controller { group: 0, on: true }),
                (3500, Action::Limit { group: 1, limit }),
            ],
        },
    );
}

/// A thread that executes a program gets its process's pid, while it runs.
#[test]
fn a_thread_that_executes_a_program_is_still_itself() {
    if too_slow() {
        return;
    }
    let _alone = alone();
    let times = if emulated() { 8 } else { 40 };
    let execs = thread(Work::Exec { times, work_us: 5000 }, 0);
    let seen = play(&Scene { groups: vec![Group::of(vec![execs])], ..Scene::default() });
    assert_right(&format!("{times} programs"), &seen);
    // The probe was there a moment before the recorder.
    let (missed, gaps) = (seen.losses.switches_missed, seen.reference.gaps);
    assert!(missed <= gaps + 2, "{missed} switches are said not to be told of, {gaps} were not");
}
