use super::*;

fn counters(n: u64) -> CpuCounters {
    let mut c =
        CpuCounters { run: n, wait: 3 * n, neighbour: 2 * n, own: n, switches: n, ..CpuCounters::default() };
    c.wait_histogram.counts[4] = n;
    c
}

#[test]
fn a_sum_follows_its_cgroups_and_keeps_what_the_dead_had() {
    let (mut a, mut b) = (CgroupAccount::default(), CgroupAccount::default());
    let mut sum = Account::default();
    a.book(&counters(10), &mut sum);
    b.book(&counters(5), &mut sum);
    assert_eq!(sum.cpu, counters(15));
    a.book(&counters(12), &mut sum);
    assert_eq!(sum.cpu, counters(17));
    // b died: nobody books it again.
    a.book(&counters(20), &mut sum);
    assert_eq!(sum.cpu, counters(25));
    // a lost its place in the kernel's table and began again.
    a.book(&counters(3), &mut sum);
    assert_eq!(sum.cpu, counters(28));
    a.book(&counters(4), &mut sum);
    assert_eq!(sum.cpu, counters(29));
}

#[test]
fn a_part_that_wavers_does_not_add_up() {
    let (mut a, mut sum) = (CgroupAccount::default(), Account::default());
    // A wait is read, then its parts: now and then those of the next one too.
    for (wait, own, unattributed) in [(12, 2, 10), (12, 4, 8), (14, 4, 10), (14, 6, 8), (18, 6, 12)] {
        a.book(&CpuCounters { wait, own, unattributed, ..CpuCounters::default() }, &mut sum);
        assert_eq!(sum.cpu.unattributed, unattributed);
    }
}

/// The kernel's clocks are new where the cpu controller was taken away and enabled again; what had been counted is not counted
/// again.
#[test]
fn a_number_that_goes_back_adds_nothing() {
    let (mut a, mut sum) = (CgroupAccount::default(), Account::default());
    a.book(&CpuCounters { run: 10, throttled_per_cpu: 7, switches: 5, ..CpuCounters::default() }, &mut sum);
    a.book(&CpuCounters { run: 12, throttled_per_cpu: 3, switches: 6, ..CpuCounters::default() }, &mut sum);
    assert_eq!((sum.cpu.run, sum.cpu.throttled_per_cpu, sum.cpu.switches), (12, 7, 6));
    a.book(&CpuCounters { run: 13, throttled_per_cpu: 4, switches: 7, ..CpuCounters::default() }, &mut sum);
    assert_eq!((sum.cpu.run, sum.cpu.throttled_per_cpu, sum.cpu.switches), (13, 8, 7));
}

#[test]
fn cgroups_stopped_together_are_not_stopped_twice() {
    let stopped = |throttled_wall, throttled_full| CpuCounters {
        throttled_wall,
        throttled_full,
        ..CpuCounters::default()
    };
    let (mut a, mut b, mut sum) = (CgroupAccount::default(), CgroupAccount::default(), Account::default());
    let mut reading = |a_now, b_now| {
        a.book(&a_now, &mut sum);
        b.book(&b_now, &mut sum);
        sum.settle();
        (sum.cpu.throttled_wall, sum.cpu.throttled_full)
    };
    assert_eq!(reading(stopped(80, 80), stopped(70, 60)), (80, 60));
    assert_eq!(reading(stopped(160, 100), stopped(70, 60)), (160, 80), "the other slept");
    assert_eq!(reading(stopped(160, 100), stopped(70, 60)), (160, 80));
    assert_eq!(reading(stopped(160, 100), stopped(150, 60)), (240, 80));
    // Two slots of one cgroup are two times, one after the other.
    let mut slots = stopped(5, 3);
    slots.add(&stopped(7, 2));
    assert_eq!(slots, stopped(12, 5));
}

#[test]
fn waiting_for_ones_own_is_no_neighbours_doing() {
    let mut account = Account::default();
    assert_eq!(account.publish_cpu(), None);
    account.cpu_seen = true;
    let mut before = CpuCounters::default();
    // (neighbour, own, within): the second and the last are read a little askew.
    for (neighbour, own, within) in [(100, 10, 60), (110, 10, 75), (120, 11, 75), (120, 11, 300)] {
        account.cpu = CpuCounters { neighbour, own, ..CpuCounters::default() };
        account.within = within;
        let now = account.publish_cpu().expect("seen");
        assert_eq!(now.neighbour + now.own, neighbour + own);
        assert!(now.neighbour >= before.neighbour && now.own >= before.own, "{before:?} then {now:?}");
        before = now;
    }
    assert_eq!((before.neighbour, before.own), (45, 86));
}

#[test]
fn stats_merge_over_the_hierarchies_of_one_reading() {
    let psi = |some| Some(Pressure { some, full: None });
    let mut account = Account::default();
    let v2 =
        CgroupStat { cpu_usage: Some(1), cpu_pressure: psi(7), io_pressure: psi(8), ..CgroupStat::default() };
    account.set_stat(Hierarchy::Unified, v2, 1);
    assert_eq!(account.stat(1), v2);
    let v1 = CgroupStat {
        cpu_usage: Some(2),
        throttled: Some(3),
        quota: Some(4),
        period: Some(8),
        ..CgroupStat::default()
    };
    account.set_stat(Hierarchy::V1Cpu, v1, 1);
    assert_eq!(account.stat(1), CgroupStat { cpu_pressure: psi(7), io_pressure: psi(8), ..v1 });
    assert_eq!(quota_cores(&account.stat(1)), Some(0.5));
    // Nothing said in the next reading is nothing known, but the last word is kept for the end.
    assert_eq!(account.stat(2), CgroupStat::default());
    assert_eq!(account.last_stat(), CgroupStat { cpu_pressure: psi(7), io_pressure: psi(8), ..v1 });
}

#[test]
fn no_quota_without_a_period() {
    let stat = CgroupStat { quota: Some(20), ..CgroupStat::default() };
    assert_eq!(quota_cores(&stat), None);
    assert_eq!(quota_cores(&CgroupStat { period: Some(0), ..stat }), None);
    assert_eq!(quota_cores(&CgroupStat { period: Some(100), ..stat }), Some(0.2));
}
