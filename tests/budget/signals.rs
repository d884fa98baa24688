//! What the signals engine keeps in memory on a full node, and that a reading costs it no allocation.

use std::sync::Arc;

use allocation_counter::measure;
use kernel_gossip::attribution::{Attributed, NamedBlame, Sample, Workload, WorkloadKind};
use kernel_gossip::kernel::{CgroupStat, CpuCounters, Instant};
use kernel_gossip::signals::{Engine, Rules};

const SECOND: u64 = 1_000_000_000;
const WORKLOADS: usize = 1000;
const CULPRITS: usize = 5;

fn node() -> Attributed {
    let who: Vec<Arc<Workload>> = (0..WORKLOADS)
        .map(|i| {
            Arc::new(Workload {
                kind: WorkloadKind::Container,
                cgroup: format!("/kubepods/burstable/pod{i:032}/{i:064}"),
                namespace: Some("default".into()),
                pod: Some(format!("pod-{i}")),
                pod_uid: Some(format!("{i:032}")),
                container: Some("app".into()),
                container_id: Some(format!("{i:064}")),
                owner: None,
                unit: None,
                cpu_limit: None,
                cpu_request: None,
                confirmed: true,
            })
        })
        .collect();
    let samples = who
        .iter()
        .map(|who| Sample {
            who: who.clone(),
            cpu: Some(CpuCounters::default()),
            stat: CgroupStat::default(),
            quota_cores: Some(0.2),
            network: None,
            reclaim: None,
            memory: None,
            last: false,
        })
        .collect();
    let blame = (0..WORKLOADS * CULPRITS)
        .map(|i| NamedBlame {
            victim: who[i / CULPRITS].clone(),
            culprit: who[(i / CULPRITS + 1 + i % CULPRITS) % WORKLOADS].clone(),
            ns: 0,
        })
        .collect();
    Attributed { samples, blame, ..Default::default() }
}

/// Second by second, with each workload's `stopped` and `waited` shares (percent); the allocations and
/// the bytes they left behind.
fn run(
    engine: &mut Engine,
    node: &mut Attributed,
    seconds: std::ops::Range<u64>,
    stopped: u64,
) -> (u64, i64) {
    let (mut allocations, mut bytes) = (0, 0);
    let mut out = Vec::with_capacity(4 * WORKLOADS);
    for second in seconds {
        let ns = second * SECOND;
        node.at = Instant { mono_ns: 1000 * SECOND + ns, unix_ns: 1_795_000_000 * SECOND + ns };
        for sample in &mut node.samples {
            let cpu = sample.cpu.as_mut().expect("has counters");
            cpu.run += SECOND / 100;
            cpu.neighbour += SECOND / 100;
            cpu.wait += SECOND / 100;
            cpu.throttled_per_cpu += SECOND * stopped / 100;
            cpu.throttled_wall += SECOND * stopped / 100;
            cpu.stalls += stopped;
            cpu.stall_histogram.counts[20] += stopped;
        }
        for blame in &mut node.blame {
            blame.ns += SECOND / 100 / CULPRITS as u64;
        }
        let step = measure(|| engine.step(node, &mut out));
        allocations += step.count_total;
        // What was said is the sinks' to keep.
        bytes += step.bytes_current + measure(|| out.clear()).bytes_current;
    }
    (allocations, bytes)
}

#[test]
fn a_full_node_takes_little_memory_and_a_reading_no_allocation() {
    let mut node = node();
    let mut engine = Engine::new(&Rules::default());
    let (_, quiet) = run(&mut engine, &mut node, 0..60, 0);
    assert!(quiet > 0, "the counter counts");
    let (allocations, _) = run(&mut engine, &mut node, 60..120, 0);
    assert_eq!(allocations, 0, "a quiet reading");
    assert_eq!(engine.active().count(), 0);

    // Now every one of them is throttled: the worst that can be.
    let (_, loud) = run(&mut engine, &mut node, 120..180, 80);
    assert_eq!(engine.active().count(), WORKLOADS);
    let (allocations, growth) = run(&mut engine, &mut node, 180..181, 80);
    assert_eq!(allocations, 0, "a reading of whispers that last");
    let (_, later) = run(&mut engine, &mut node, 181..400, 80);

    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    let per_pair = 256 * (WORKLOADS * CULPRITS) as i64;
    println!("{WORKLOADS} quiet workloads, {} pairs: {:.1} MiB", WORKLOADS * CULPRITS, mib(quiet));
    println!("all throttled: {:.1} MiB", mib(quiet + loud + growth + later));
    // 4.3 KiB a workload, for 16 samples of 15 counters and 6 signals.
    assert!(quiet - per_pair < 9 << 19, "{} bytes", quiet);
    assert!(quiet + loud + growth + later < 24 << 20);
}
