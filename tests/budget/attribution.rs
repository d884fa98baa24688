//! What attribution costs once everything is known: no allocation, and time in proportion to the cgroups.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kernel_gossip::attribution::pods::PodIndex;
use kernel_gossip::attribution::{AttributionOptions, Attributor};
use kernel_gossip::kernel::{
    Blame, CgroupChange, CgroupKey, CgroupStat, CpuCounters, CpuReading, Hierarchy, ProgramCost, Reading,
    StatReading,
};

/// A node of `pods` pods of two containers and a sandbox each on a v2 host, everyone waiting for three
/// others, with all the numbers of second `second`.
fn node(pods: u64, second: u64) -> Reading {
    let key = |id| CgroupKey { hierarchy: Hierarchy::Unified, id };
    let mut reading = Reading::default();
    reading.at.mono_ns = second * 1_000_000_000;
    let mut ids = Vec::new();
    for pod in 0..pods {
        let path = format!("/kubepods/burstable/pod{pod:08x}-0000-4000-8000-000000000000");
        let mut add = |id: u64, path: String| {
            ids.push(id);
            if second == 0 {
                reading.changes.push(CgroupChange::Present { cgroup: key(id), path });
            }
        };
        add(pod * 10, path.clone());
        (1..4).for_each(|i| add(pod * 10 + i, format!("{path}/{:064x}", pod * 10 + i)));
    }
    for (at, &id) in ids.iter().enumerate() {
        let n = id + second * 1000;
        let counters = CpuCounters { run: n, switches: n, wait: n, neighbour: n, ..CpuCounters::default() };
        reading.cpu.push(CpuReading { cgroup: key(id), counters });
        let stat =
            CgroupStat { cpu_usage: Some(n), quota: Some(1), period: Some(5), ..CgroupStat::default() };
        reading.stats.push(StatReading { cgroup: key(id), stat });
        for next in 1..4 {
            let culprit = ids[(at + next) % ids.len()];
            reading.blame.push(Blame { victim: key(id), culprit: key(culprit), ns: n, table: false });
        }
    }
    reading.programs.push(ProgramCost {
        name: "sched_switch".into(),
        run_time: Duration::ZERO,
        runs: second,
    });
    reading
}

fn attributor() -> Attributor {
    Attributor::new(AttributionOptions { read_bundles: false, ..AttributionOptions::default() })
}

#[test]
fn the_steady_state_allocates_nothing() {
    let (pods, mut attributor) = (PodIndex::default(), attributor());
    let readings: Vec<_> = (0..6).map(|second| node(100, second)).collect();
    let count = |attributor: &mut Attributor, reading: &Reading| {
        let info = allocation_counter::measure(|| {
            black_box(attributor.attribute(reading, &pods).samples.len());
        });
        info.count_total
    };
    assert!(count(&mut attributor, &readings[0]) > 400, "the counter counts");
    assert_eq!(attributor.attribute(&readings[1], &pods).samples.len(), 400);
    for reading in &readings[2..] {
        assert_eq!(count(&mut attributor, reading), 0);
    }
}

/// Prints ratios; nothing here fails by the clock. `cargo test --release --test budget attribution -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_attribution() {
    let best = |pods: u64| {
        let (index, mut attributor) = (PodIndex::default(), attributor());
        attributor.attribute(&node(pods, 0), &index);
        let readings: Vec<_> = (1..40).map(|second| node(pods, second)).collect();
        let attributed = readings.iter().map(|reading| {
            let start = Instant::now();
            black_box(attributor.attribute(reading, &index).samples.len());
            start.elapsed()
        });
        let attributed = attributed.min().unwrap_or_default();
        let copied = readings.iter().map(|reading| {
            let start = Instant::now();
            black_box(reading.clone());
            start.elapsed()
        });
        (attributed, copied.min().unwrap_or_default())
    };
    let ((few, _), (many, copied)) = (best(25), best(250));
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!(
        "1,000 cgroups and 3,000 pairs: {many:?} a reading, {:.3} % of a second",
        many.as_secs_f64() * 100.0
    );
    println!("{:.1} times the cost of 100 cgroups", ratio(many, few));
    println!("{:.1} times the cost of copying the reading", ratio(many, copied));
}
