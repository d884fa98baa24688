//! The CPU probe's figures: cpu.stat, schedstat and known workloads are the oracle.

use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel_gossip::kernel::Hook;
use kernel_gossip::kernel::cpu::CpuLosses;
use kernel_gossip::kernel::{Blame, CpuCounters, Log2Histogram};
use procfs::KernelVersion;

use crate::bed::cgroup::{Burners, Cgroup};
use crate::bed::{emulated, until};
use crate::kernel::cpu::{Moment, Reader, alone, kernel, options, seconds};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How exact a figure can be here: 1 % on a real CPU.
fn exact() -> f64 {
    if emulated() { 0.1 } else { 0.01 }
}

/// How far the stalls may be from cpu.stat. Since 6.6 the kernel keeps the very clock; before, one that
/// leaves out time the CPU spent in interrupts or ran slower.
fn tolerance() -> f64 {
    if kernel() >= KernelVersion::new(6, 6, 0) { exact() } else { 0.15 }
}

#[track_caller]
fn assert_near(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!(
        (got - want).abs() <= tolerance * want.abs().max(1e-9),
        "{what}: {got:.4} is not within {:.1} % of {want:.4}",
        tolerance * 100.0
    );
}

/// What the kernel's own books say of these tasks: time on CPU and time waited, s. Both grow when a task is
/// switched in or moved, as ours do.
fn schedstat<'a>(burners: impl IntoIterator<Item = &'a Burners>) -> (f64, f64) {
    let (mut run, mut wait) = (0, 0);
    for pid in burners.into_iter().flat_map(Burners::pids) {
        let line = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
        let mut numbers = line.split(' ').map(|n| n.parse::<u64>().unwrap_or(0));
        run += numbers.next().expect("run time");
        wait += numbers.next().expect("run delay");
    }
    (seconds(run), seconds(wait))
}

/// A reading, and what the kernel's own books say of each of these at that moment. Taken again if whatever else runs here, or
/// the hypervisor, came in between: under an emulated CPU that was 8 s once.
fn books(reader: &mut Reader, burners: &[Burners]) -> (Moment, Vec<(f64, f64)>) {
    let soon = if emulated() { SECOND } else { 100 * MS };
    until("a reading of both at once", || {
        let begun = Instant::now();
        let moment = reader.moment();
        let told = burners.iter().map(|b| schedstat([b])).collect();
        (begun.elapsed() < soon).then_some((moment, told))
    })
}

/// The longest wait counted, s (the bound of its bucket): what may be under way when a reading is taken.
fn longest(counters: &CpuCounters) -> f64 {
    let last = counters.wait_histogram.counts.iter().rposition(|c| *c > 0);
    last.map_or(0.0, Log2Histogram::upper_bound)
}

/// What of the kernel's own figure ours may lack, s: each switch that the kernel did not tell of took a wait, or a run,
/// of at most `longest` with it.
fn untold(missed: u64, longest: f64, kernel: f64, ours: f64) -> f64 {
    (kernel - ours).clamp(0.0, missed as f64 * longest)
}

/// A task that always wants a CPU runs or waits: the two add up to the time that passed, but for a wait under
/// way at either end.
#[track_caller]
fn assert_no_rest(
    name: &str,
    run: f64,
    wait: f64,
    elapsed: &RangeInclusive<f64>,
    threads: usize,
    longest: f64,
) {
    let threads = threads as f64;
    let (least, most) = (elapsed.start() * threads, elapsed.end() * threads);
    let slack = exact() * most + longest * threads;
    let sum = run + wait;
    assert!(
        sum >= least - slack && sum <= most + slack,
        "{name}: run {run:.3} + wait {wait:.3} is not {least:.3} to {most:.3} s"
    );
}

/// Limits a cgroup in which this many threads run, once each of them was switched in: that a task runs in a cgroup is
/// known from then on, and time before is in no figure.
fn limit_once_known(reader: &mut Reader, cgroup: &Cgroup, threads: usize, limit: impl FnOnce()) {
    until("its threads", || (reader.of(cgroup).switches >= 2 * threads as u64).then_some(()));
    limit();
}

/// The per-CPU sum of the stalls equals cpu.stat, whatever the quota, the threads and the CPUs.
fn stalls_equal_cpu_stat(hook: Hook) {
    let _alone = alone();
    // quota ms, period ms, threads, pinned to one CPU
    let shapes = [
        (5, 10, 1, Some(0)),
        (20, 100, 4, None),
        (150, 100, 4, None),
        (20, 100, 1, Some(0)),
        (50, 100, 2, None),
        (30, 200, 3, None),
        (400, 100, 4, None),
    ];
    // The other hook and an emulated CPU are shown the first three: that this kernel's figure is ours does not hang on the quota.
    let shown = if emulated() || hook == Hook::RawTracepoint { 3 } else { shapes.len() };
    for (quota, period, threads, cpu) in shapes.into_iter().take(shown) {
        let mut storage = MaybeUninit::uninit();
        let mut reader = Reader::new(&mut storage, options(hook));
        let cgroup = Cgroup::new("stalls");
        let burners = cgroup.burn(threads, cpu);
        limit_once_known(&mut reader, &cgroup, threads, || cgroup.limit(Some(quota * MS), period * MS));
        sleep(3 * SECOND);
        // Without a limit every stall ends; it is counted when a task is next switched in there.
        cgroup.limit(None, period * MS);
        let told = cgroup.throttled().as_secs_f64();
        until("the end of every stall", || {
            (seconds(reader.of(&cgroup).throttled_per_cpu) >= told * (1.0 - tolerance())).then_some(())
        });
        drop(burners);
        let ours = reader.of(&cgroup);
        let name = format!("{hook:?} {quota}/{period} ms, {threads} threads, CPU {cpu:?}");
        println!("{name}: stalls {:.3} s, cpu.stat {told:.3} s", seconds(ours.throttled_per_cpu));
        if told == 0.0 {
            assert_eq!(ours.throttled_per_cpu, 0, "{name}");
            continue;
        }
        assert_near(&name, seconds(ours.throttled_per_cpu), told, tolerance());
        assert!(ours.throttled_wall <= ours.throttled_per_cpu, "{name}: {ours:?}");
        assert!(ours.throttled_full <= ours.throttled_wall, "{name}: {ours:?}");
        assert_eq!(ours.stall_histogram.count(), ours.stalls, "{name}");
        // What the kernel does not tell of is no fault of the probe, and of a wait through many stalls some has no name.
        let unnamed = seconds(reader.losses.blame_unnamed_ns);
        assert!(unnamed <= 0.01 * seconds(ours.wait), "{name}: {unnamed} s without a name, {ours:?}");
        let lost = CpuLosses { switches_missed: 0, blame_unnamed_ns: 0, ..reader.losses };
        assert_eq!(lost, CpuLosses::default(), "{name}");
    }
}

#[test]
fn stalls_equal_cpu_stat_by_typed_tracepoint() {
    stalls_equal_cpu_stat(Hook::TpBtf);
}

#[test]
fn stalls_equal_cpu_stat_by_raw_tracepoint() {
    stalls_equal_cpu_stat(Hook::RawTracepoint);
}

#[test]
fn a_burner_with_a_fifth_of_a_cpu_is_stopped_four_fifths_of_the_time() {
    let _alone = alone();
    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
    let cgroup = Cgroup::new("fifth");
    cgroup.limit(Some(20 * MS), 100 * MS);
    let _burner = cgroup.burn(1, Some(0));
    let points = 100.0 * tolerance();
    // From the end of one stall to the end of another: whole periods. Where the kernel left out switches, or this test itself
    // had to wait for a CPU, it is measured again: what was not told of is in no sum.
    let mut next_stall = || {
        let seen = reader.of(&cgroup).stalls;
        until("the run after a stall", || {
            let now = reader.of(&cgroup);
            if now.stalls == seen {
                return None;
            }
            // That nothing of it ran is known once something does.
            let next = reader.of(&cgroup);
            let runs_again = next.stalls == now.stalls && next.run > now.run;
            runs_again.then(|| (next, reader.losses.switches_missed, Instant::now()))
        })
    };
    next_stall();
    let (full, wall, stalls) = (0..5)
        .find_map(|_| {
            let (first, missed_before, start) = next_stall();
            sleep(5 * SECOND);
            let (last, missed, end) = next_stall();
            let elapsed = (end - start).as_secs_f64();
            let of = |of: fn(&CpuCounters) -> u64| seconds(of(&last) - of(&first));
            let percent = |counter| of(counter) / elapsed * 100.0;
            let (throttled, run, neighbour) =
                (percent(|c| c.throttled_wall), percent(|c| c.run), percent(|c| c.neighbour));
            let missed = missed - missed_before;
            println!(
                "throttled {throttled:.2} %, ran {run:.2} %, waited for others {neighbour:.2} %, {missed} switches not \
                 told of"
            );
            // Whatever else this machine does, it ran, was throttled or waited for another. While another cgroup has
            // the CPU the quota is not used up: that time is not throttled.
            let whole = (throttled + neighbour + run - 100.0).abs() <= points;
            let stopped = neighbour >= 1.0 || (throttled - 80.0).abs() <= points + neighbour;
            let told = missed == 0 || of(|c| c.throttled_full) >= 0.999 * of(|c| c.throttled_wall);
            (whole && stopped && told).then(|| {
                (of(|c| c.throttled_full), of(|c| c.throttled_wall), (last.stalls - first.stalls) as f64)
            })
        })
        .expect("a window in which it was stopped for 80 % and the parts are the whole");
    if options(Hook::TpBtf).atomics {
        // One thread: stopped is stopped everywhere, but for what it still does in the kernel once it is, where an emulated
        // CPU is slow: 0.13 ms a stall under 7.3.
        let in_the_kernel = if emulated() { 0.001 } else { 0.000_08 };
        assert!(full <= wall && full >= wall - stalls * in_the_kernel, "{full} of {wall} s, {stalls} stalls");
    }
}

/// For tasks that always want a CPU: run + throttle + neighbour + own + unattributed = elapsed.
#[test]
fn a_wait_is_split_without_rest() {
    let _alone = alone();
    let shapes: &[usize] = if emulated() { &[4] } else { &[2, 4, 8] };
    for &competitors in shapes {
        let mut storage = MaybeUninit::uninit();
        let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
        let groups: Vec<Cgroup> = (0..competitors).map(|i| Cgroup::new(&format!("split{i}"))).collect();
        groups[0].limit(Some(20 * MS), 100 * MS);
        // The last has two threads: they wait for each other too.
        let threads = |i: usize| if i == competitors - 1 { 2 } else { 1 };
        let burners: Vec<_> = groups.iter().enumerate().map(|(i, g)| g.burn(threads(i), Some(0))).collect();
        sleep(SECOND);
        let (before, told_before) = books(&mut reader, &burners);
        let blamed_before: u64 = reader.blamed(&groups[0], &groups[1]);
        sleep(6 * SECOND);
        let (after, told) = books(&mut reader, &burners);
        let missed = after.missed - before.missed;
        let elapsed = after.since(&before);
        drop(burners);
        for (i, group) in groups.iter().enumerate() {
            let (a, b) = (before.of[&group.id()], after.of[&group.id()]);
            let of = |f: fn(&CpuCounters) -> u64| seconds(f(&b) - f(&a));
            let (run, wait) = (of(|c| c.run), of(|c| c.wait));
            let unattributed = of(|c| c.unattributed);
            println!(
                "{competitors} competitors, cgroup {i}: run {run:.3} wait {wait:.3} = throttle {:.3} + neighbour \
                 {:.3} + own {:.3} + unattributed {unattributed:.3}",
                of(|c| c.throttle),
                of(|c| c.neighbour),
                of(|c| c.own),
            );
            // What ran, and waited, by a switch the kernel did not tell of is in its own books alone.
            let longest = longest(&b);
            let more_run = untold(missed, longest, told[i].0 - told_before[i].0, run);
            let more_wait = untold(missed, longest, told[i].1 - told_before[i].1, wait);
            println!(
                "  {missed} switches not told of: run {more_run:.3} and wait {more_wait:.3} s more by schedstat"
            );
            assert_no_rest(
                &format!("cgroup {i}"),
                run + more_run,
                wait + more_wait,
                &elapsed,
                threads(i),
                longest,
            );
            let gap = missed as f64 * longest;
            assert!(
                unattributed <= if emulated() { 0.3 } else { 0.05 } * wait + gap,
                "cgroup {i}: {unattributed:.3} of {wait:.3} s unattributed"
            );
            if i == 0 {
                let (throttle, stalls) = (of(|c| c.throttle), of(|c| c.throttled_per_cpu));
                let near = 0.05 + tolerance();
                assert!(
                    throttle <= stalls * (1.0 + near) && throttle >= stalls * (1.0 - near) - gap,
                    "throttle {throttle:.3} s, stalls {stalls:.3} s"
                );
            } else {
                assert_eq!(of(|c| c.throttle), 0.0, "cgroup {i} has no limit");
            }
        }
        assert!(reader.blamed(&groups[0], &groups[1]) > blamed_before);
    }
}

#[test]
fn equal_competitors_blame_each_other() {
    let _alone = alone();
    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
    let groups = [Cgroup::new("one"), Cgroup::new("other")];
    let _burners = groups.each_ref().map(|g| g.burn(1, Some(0)));
    sleep(SECOND);
    let before = reader.moment();
    let blame_before = reader.blame.clone();
    sleep(5 * SECOND);
    let after = reader.moment();
    let missed = after.missed - before.missed;
    // The CPU is never idle: who else ran there, by what the two left of it.
    let ran: u64 = groups.iter().map(|g| after.of[&g.id()].run - before.of[&g.id()].run).sum();
    let others_ran = (after.since(&before).end() - seconds(ran)).max(0.0);
    for (victim, culprit) in [(0, 1), (1, 0)] {
        let (id, by) = (groups[victim].id(), groups[culprit].id());
        let blamed = |blame: &[Blame], by: Option<u64>| -> u64 {
            let of = |b: &&Blame| b.victim.id == id && by.is_none_or(|by| b.culprit.id == by);
            blame.iter().filter(of).map(|b| b.ns).sum()
        };
        let neighbour = seconds(after.of[&id].neighbour - before.of[&id].neighbour);
        let all = seconds(blamed(&reader.blame, None) - blamed(&blame_before, None));
        let other = seconds(blamed(&reader.blame, Some(by)) - blamed(&blame_before, Some(by)));
        let other_ran = seconds(after.of[&by].run - before.of[&by].run);
        println!(
            "{victim} waited {neighbour:.3} s for neighbours, {other:.3} s for the other, which ran {other_ran:.3} s"
        );
        // Blame is read after the counters: what was added in between is a wait at most.
        let slack = 0.001 * neighbour + longest(&after.of[&id]);
        assert!(
            (all - neighbour).abs() <= slack,
            "everybody's blame, {all}, is the neighbours' part, {neighbour}"
        );
        // A wait that ended by a switch the kernel did not tell of is nobody's fault; what the other ran then is told.
        let gap = missed as f64 * longest(&after.of[&id]);
        assert!(
            other <= other_ran * (1.0 + 5.0 * exact()) && other >= other_ran * (1.0 - 5.0 * exact()) - gap,
            "the other is blamed for {other:.3} s, it ran {other_ran:.3} s, {missed} switches not told of"
        );
        assert!(other >= 0.95 * (neighbour - others_ran), "{other} of {neighbour}, others ran {others_ran}");
    }
}

/// More threads than CPUs and no pinning: what a task waited before it was moved counts.
#[test]
fn tasks_that_migrate_lose_no_wait() {
    let _alone = alone();
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
    let (one, other) = (Cgroup::new("many"), Cgroup::new("few"));
    let threads = [cpus + 1, cpus];
    let burners = [one.burn(threads[0], None), other.burn(threads[1], None)];
    sleep(SECOND);
    let (before, told_before) = books(&mut reader, &burners);
    sleep(6 * SECOND);
    let (after, told) = books(&mut reader, &burners);
    let missed = after.missed - before.missed;
    let elapsed = after.since(&before);
    for (i, cgroup) in [&one, &other].into_iter().enumerate() {
        let (a, b) = (before.of[&cgroup.id()], after.of[&cgroup.id()]);
        let (run, wait) = (seconds(b.run - a.run), seconds(b.wait - a.wait));
        let (kernel_run, kernel) = (told[i].0 - told_before[i].0, told[i].1 - told_before[i].1);
        println!(
            "{} threads: run {run:.3} + wait {wait:.3} (schedstat {kernel_run:.3} + {kernel:.3}), elapsed {:.3}, \
             {missed} switches not told of",
            threads[i],
            elapsed.end()
        );
        // A wait that ends between the two readings is in one of them; one that ended by a switch the kernel did
        // not tell of is in its own sum alone.
        let longest = longest(&b);
        let slack = 2.0 * exact() * kernel + longest * threads[i] as f64 + missed as f64 * longest;
        assert!((wait - kernel).abs() <= slack, "the kernel's own run delay: {wait:.3} is not {kernel:.3} s");
        assert_no_rest(
            "moved about",
            run + untold(missed, longest, kernel_run, run),
            wait + untold(missed, longest, kernel, wait),
            &elapsed,
            threads[i],
            longest,
        );
    }
}

/// Pod and container both have the limit, as in a pod of one container: the container's own cgroup tells.
#[test]
fn a_container_is_stalled_by_its_pod_as_well() {
    let _alone = alone();
    for container_too in [true, false] {
        let mut storage = MaybeUninit::uninit();
        let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
        let pod = Cgroup::new("nested");
        let container = pod.child("container");
        let burners = container.burn(1, Some(0));
        limit_once_known(&mut reader, &container, 1, || {
            pod.limit(Some(20 * MS), 100 * MS);
            if container_too {
                container.limit(Some(20 * MS), 100 * MS);
            }
        });
        sleep(4 * SECOND);
        container.limit(None, 100 * MS);
        pod.limit(None, 100 * MS);
        let told = [pod.throttled().as_secs_f64(), container.throttled().as_secs_f64()];
        until("the end of every stall", || {
            let longer = told[0].max(told[1]);
            (seconds(reader.of(&container).throttled_per_cpu) >= longer * (1.0 - tolerance())).then_some(())
        });
        drop(burners);
        let stalled = seconds(reader.of(&container).throttled_per_cpu);
        println!(
            "stalls {stalled:.3} s; cpu.stat of the pod {:.3}, of the container {:.3} s",
            told[0], told[1]
        );
        // Both may be throttled at once: no more than their sum, no less than either.
        assert!(stalled <= (told[0] + told[1]) * (1.0 + tolerance()));
        assert!(stalled > 0.0, "a limit binds");
    }
}

/// On two CPUs: wall is a union, full the part in which nothing of it ran.
#[test]
fn wall_and_full_are_told_apart() {
    let _alone = alone();
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    if cpus < 2 || !options(Hook::TpBtf).atomics {
        println!("one CPU, or no BPF atomics: nothing to tell apart");
        return;
    }
    let mut storage = MaybeUninit::uninit();
    let mut reader = Reader::new(&mut storage, options(Hook::TpBtf));
    let cgroup = Cgroup::new("wall");
    cgroup.limit(Some(40 * MS), 100 * MS);
    let _burners = (cgroup.burn(1, Some(0)), cgroup.burn(1, Some(1)));
    sleep(SECOND);
    let a = reader.of(&cgroup);
    let start = Instant::now();
    sleep(5 * SECOND);
    let b = reader.of(&cgroup);
    let elapsed = start.elapsed().as_secs_f64();
    let of = |f: fn(&CpuCounters) -> u64| seconds(f(&b) - f(&a));
    let (sum, wall, full) = (of(|c| c.throttled_per_cpu), of(|c| c.throttled_wall), of(|c| c.throttled_full));
    let (run, neighbour) = (of(|c| c.run), of(|c| c.neighbour));
    println!(
        "{elapsed:.3} s: sum {sum:.3} wall {wall:.3} full {full:.3} run {run:.3} neighbour {neighbour:.3}"
    );
    assert!(full <= wall && wall < sum && wall <= elapsed * (1.0 + 2.0 * exact()));
    // Whenever neither thread ran nor waited for another cgroup, all of it was stopped.
    assert!(full >= elapsed - run - neighbour - 5.0 * exact() * elapsed, "{full}");
    assert!(full <= elapsed - run / 2.0 + 2.0 * exact() * elapsed, "{full}: it ran on two CPUs at most");
}
