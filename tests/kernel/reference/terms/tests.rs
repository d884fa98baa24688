//! Traces made by hand: what they come to can be seen by looking.

use super::*;

const A: u64 = 10;
const B: u64 = 20;
const IDLE: Task = Task { address: 1, pid: 0 };

fn task(number: u32) -> Task {
    Task { address: 1000 + u64::from(number), pid: number }
}

fn wake(at: u64, task: Task, cgroup: u64) -> Event {
    Event { at, cpu: 0, what: What::Wake { task, cgroup, queued: at, spent: false, realtime: false } }
}

/// Who arrived when, and wants to go on or not; who comes, of which cgroup, queued since when.
fn switch(at: u64, out: (Task, u64, bool), come: (Task, u64, u64)) -> Event {
    let (prev, arrived, runnable) = out;
    let (next, cgroup, queued) = come;
    let what = What::Switch {
        prev,
        arrived,
        runnable,
        spent: false,
        next,
        cgroup,
        queued,
        delay: 0,
        realtime: false,
    };
    Event { at, cpu: 0, what }
}

fn look(at: u64, clock: u64, since: u64) -> Event {
    Event { at, cpu: 0, what: What::Look { cgroup: A, clock, since, fresh: false } }
}

/// Two threads of A and one of B share a CPU.
#[test]
fn a_wait_is_for_whoever_runs() {
    let [one, two, other] = [task(1), task(2), task(3)];
    let figures = figures(
        &[
            wake(100, one, A),
            switch(100, (IDLE, 0, true), (one, A, 100)),
            wake(110, other, B),
            wake(120, two, A),
            switch(200, (one, 100, true), (other, B, 110)),
            switch(300, (other, 200, false), (two, A, 120)),
            switch(400, (two, 300, false), (one, A, 200)),
            switch(500, (one, 400, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let (a, b) = (figures.of(A), figures.of(B));
    assert_eq!((figures.gaps, figures.odd), (0, 0));
    // one: 200 to 400, of which B 100 and two 100. two: 120 to 300, of which one 80 and B 100, the same as one's.
    assert_eq!(a.waited, 100);
    assert_eq!((a.run, a.wait, a.own, a.neighbour, a.unattributed), (300, 380, 180, 200, 0));
    assert_eq!(a.shares, BTreeMap::from([(B, 200)]));
    assert_eq!((b.run, b.wait, b.neighbour), (100, 90, 90));
    assert_eq!(a.slack, Slack::default());
}

/// It is stopped from 200 to 500, while B runs from 200 to 600.
#[test]
fn while_it_is_stopped_nobody_keeps_it_off() {
    let [one, other] = [task(1), task(3)];
    let figures = figures(
        &[
            look(100, 0, 0),
            wake(100, one, A),
            switch(100, (IDLE, 0, true), (one, A, 100)),
            wake(150, other, B),
            look(200, 0, 200),
            switch(200, (one, 100, true), (other, B, 150)),
            look(600, 300, 0),
            switch(600, (other, 200, true), (one, A, 200)),
            switch(700, (one, 600, false), (other, B, 600)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.throttle, a.neighbour, a.unattributed), (400, 300, 100, 0));
    assert_eq!((a.throttled_per_cpu, a.throttled_wall, a.throttled_full, a.stalls), (300, 300, 300, 1));
}

/// A's queue is throttled for the groups below it, while no task of its own waits: that is not its stall.
#[test]
fn the_stalls_of_groups_below_are_not_its_own() {
    let one = task(1);
    let figures = figures(
        &[
            look(100, 0, 0),
            wake(100, one, A),
            switch(100, (IDLE, 0, true), (one, A, 100)),
            switch(150, (one, 100, false), (IDLE, 0, 0)),
            look(200, 0, 200),
            look(500, 300, 0),
            wake(600, one, A),
            switch(700, (IDLE, 500, true), (one, A, 600)),
            switch(800, (one, 700, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.throttle, a.unattributed), (100, 0, 100));
    assert_eq!((a.throttled_per_cpu, a.throttled_wall, a.throttled_full, a.stalls), (0, 0, 0, 0));
}

/// What a queue was throttled before it was seen may be part of a wait, or not.
#[test]
fn a_clock_that_ran_before_leaves_room() {
    let one = task(1);
    let figures = figures(
        &[
            look(500, 300, 0),
            switch(500, (IDLE, 0, true), (one, A, 100)),
            switch(600, (one, 500, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.throttle, a.throttled_per_cpu), (400, 0, 0));
    assert_eq!((a.slack.split, a.slack.stall), (300, 300));
}

/// The same by moments, throttled before anything waits there.
#[test]
fn a_stall_begins_with_who_is_stopped() {
    let one = task(1);
    let stall = |at, what| Event { at, cpu: 0, what };
    let figures = figures(
        &[
            stall(100, What::Throttle { cgroup: A }),
            wake(150, one, A),
            stall(300, What::Unthrottle { cgroup: A }),
            switch(310, (IDLE, 0, true), (one, A, 150)),
            switch(400, (one, 310, false), (IDLE, 0, 0)),
        ],
        Exactly::Moments,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.throttle, a.unattributed, a.throttled_per_cpu), (160, 150, 10, 150));
}

/// Of two stalls that overlap, the union; of that, the part in which nothing ran on the other CPU.
#[test]
fn stalls_of_two_cpus_are_joined() {
    let stalls = [Span { from: 100, to: 300 }, Span { from: 50, to: 200 }, Span { from: 400, to: 500 }];
    let joined = union(stalls.to_vec());
    assert_eq!(joined, [Span { from: 50, to: 300 }, Span { from: 400, to: 500 }]);
    assert_eq!(common(&joined, &[Span { from: 0, to: 60 }, Span { from: 290, to: 410 }]), 10 + 10 + 10);
}

/// A task is moved while it waits: what it waited is the CPU's that it leaves.
#[test]
fn a_move_ends_a_wait() {
    let [one, other] = [task(1), task(3)];
    let mut come = switch(170, (IDLE, 0, true), (one, A, 161));
    come.cpu = 1;
    let figures = figures(
        &[
            wake(90, other, B),
            switch(100, (IDLE, 0, true), (other, B, 90)),
            wake(110, one, A),
            Event { at: 160, cpu: 0, what: What::Move { task: one, cgroup: A, to: 1, delay: 50 } },
            come,
            switch(200, (other, 100, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.waits, a.neighbour, a.unattributed), (59, 2, 50, 9));
}

/// Moved and moved again: between two queues, 160 to 170 and 190 to 200, it waits on neither.
#[test]
fn on_its_way_it_does_not_wait() {
    let [one, other] = [task(1), task(3)];
    let moved = |at, cpu, to, delay| Event { at, cpu, what: What::Move { task: one, cgroup: A, to, delay } };
    let figures = figures(
        &[
            wake(90, other, B),
            switch(100, (IDLE, 0, true), (other, B, 90)),
            wake(110, one, A),
            moved(160, 0, 1, 50),
            moved(190, 1, 0, 70),
            switch(250, (other, 100, false), (one, A, 200)),
            switch(300, (one, 250, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.waits, a.neighbour, a.unattributed), (120, 3, 100, 20));
}

/// A queue that is throttled before anything of the cgroup ran there: who sees switches and moves alone may not know of it.
#[test]
fn a_stall_before_the_first_run_leaves_room() {
    let one = task(1);
    let figures = figures(
        &[
            look(50, 0, 0),
            wake(100, one, A),
            look(100, 0, 100),
            look(400, 300, 0),
            switch(410, (IDLE, 0, true), (one, A, 100)),
            switch(500, (one, 410, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let a = figures.of(A);
    assert_eq!((a.wait, a.throttle, a.throttled_per_cpu), (310, 300, 300));
    assert_eq!((a.slack.split, a.slack.stall), (300, 300));
}

/// Nobody saw B come: the kernel knows when it did, and who sees switches alone may be wrong by that much.
#[test]
fn a_switch_that_was_not_told_of_is_known_by_its_end() {
    let [one, other] = [task(1), task(3)];
    let figures = figures(
        &[
            wake(100, one, A),
            switch(100, (IDLE, 0, true), (one, A, 100)),
            wake(120, other, B),
            switch(300, (other, 250, false), (one, A, 250)),
            switch(400, (one, 300, false), (IDLE, 0, 0)),
        ],
        Exactly::Clocks,
    );
    let (a, b) = (figures.of(A), figures.of(B));
    assert_eq!((figures.gaps, a.run, b.run), (1, 250, 50));
    assert_eq!((a.slack.run, b.slack.run, b.slack.wait), (200, 200, 130));
    assert_eq!((b.wait, a.neighbour, a.slack.split), (130, 50, 50));
}

/// A task whose deadline budget is used up waits for nobody.
#[test]
fn a_spent_budget_is_no_neighbour() {
    let [one, other] = [task(1), task(3)];
    let mut out = switch(200, (one, 100, true), (other, B, 150));
    let mut back = switch(500, (other, 200, true), (one, A, 200));
    if let (What::Switch { spent, .. }, What::Switch { realtime, .. }) = (&mut out.what, &mut back.what) {
        (*spent, *realtime) = (true, true);
    }
    let events = [wake(100, one, A), switch(100, (IDLE, 0, true), (one, A, 100)), out, back];
    let a = figures(&events, Exactly::Clocks).of(A);
    assert_eq!((a.wait, a.neighbour, a.unattributed, a.slack.split), (300, 0, 300, 0));
}
