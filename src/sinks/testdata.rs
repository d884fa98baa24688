//! Readings and whispers in which everything is known: the sinks' unit tests, the integration tests and the benches use
//! the same. Always compiled, as the latter two are crates of their own that see no `cfg(test)`; nothing of the program
//! calls it, so the linker leaves it out.

use std::sync::Arc;

use crate::api::{
    Actor, BirthFailure, BirthOutcome, BirthPhase, ContainerRestart, KernelStats, MissingPart,
    PodBirthCertificateStatus, SlowPhase, Source,
};
use crate::attribution::{Attributed, NamedBlame, Sample, Workload, WorkloadKind};
use crate::birth::{Certificate, Phase, Process};
use crate::evidence::{SignalEvidence, Type, Value};
use crate::kernel::{
    CgroupStat, CpuCounters, DropReason, Instant, NetworkCounters, PacketCounters, Pressure, ProgramCost,
};
use crate::signals::{HistoryPoint, Neighbour, Severity, SignalKind, Transition, Whisper};

/// A number of seconds as ns.
pub fn second(s: u64) -> u64 {
    s * 1_000_000_000
}

/// The moment `s` seconds after the boot, which was at 1,000,000 s after the Unix epoch.
pub fn moment(s: u64) -> Instant {
    Instant { mono_ns: second(s), unix_ns: second(1_000_000 + s) }
}

/// The kinds of workload that are published.
pub const KINDS: [WorkloadKind; 6] = [
    WorkloadKind::Container,
    WorkloadKind::Sandbox,
    WorkloadKind::Pod,
    WorkloadKind::Unit,
    WorkloadKind::Root,
    WorkloadKind::Cgroup,
];

pub fn container(namespace: &str, pod: &str, name: &str) -> Arc<Workload> {
    let id =
        format!("{:0>64}", pod.bytes().chain(name.bytes()).map(|b| format!("{b:x}")).collect::<String>());
    let id = id[id.len() - 64..].to_owned();
    Arc::new(Workload {
        kind: WorkloadKind::Container,
        cgroup: format!("/kubepods/burstable/pod-{namespace}-{pod}/{id}"),
        namespace: Some(namespace.into()),
        pod: Some(pod.into()),
        pod_uid: Some(format!("uid-of-{pod}")),
        container: Some(name.into()),
        container_id: Some(id),
        owner: Some(("ReplicaSet".into(), format!("{pod}-owner"))),
        unit: None,
        cpu_limit: Some(0.5),
        cpu_request: Some(0.25),
        confirmed: true,
    })
}

/// A systemd service.
pub fn unit(name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        kind: WorkloadKind::Unit,
        cgroup: format!("/system.slice/{name}"),
        namespace: None,
        pod: None,
        pod_uid: None,
        container: None,
        container_id: None,
        owner: None,
        unit: Some(name.into()),
        cpu_limit: None,
        cpu_request: None,
        confirmed: false,
    })
}

/// Counters that grew for `s` seconds: a fifth run, the rest waited.
pub fn counters(s: u64) -> CpuCounters {
    let mut cpu = CpuCounters {
        run: second(s) / 5,
        wait: second(s) / 5 * 4,
        throttle: second(s) / 10 * 3,
        neighbour: second(s) / 10 * 3,
        own: second(s) / 10,
        unattributed: second(s) / 10,
        interrupted: second(s) / 100,
        stolen: second(s) / 50,
        stalls: s * 10,
        throttled_per_cpu: second(s) / 2,
        throttled_wall: second(s) / 5 * 2,
        throttled_full: second(s) / 10,
        disk: second(s) / 20,
        memory: Some(second(s) / 4),
        refault: second(s) / 10,
        reclaim_asleep: second(s) / 20,
        high: second(s) / 10,
        switches: s * 100,
        ..CpuCounters::default()
    };
    cpu.wait_histogram.record(8_000_000);
    cpu.stall_histogram.record(50_000_000);
    cpu.wait_histogram.counts.iter_mut().for_each(|count| *count *= cpu.switches);
    cpu.stall_histogram.counts.iter_mut().for_each(|count| *count *= cpu.stalls);
    cpu
}

/// Everything the kernel can say after `s` seconds.
pub fn stat(s: u64) -> CgroupStat {
    let pressure = Some(Pressure { some: second(s) / 2, full: Some(second(s) / 4) });
    CgroupStat {
        cpu_usage: Some(second(s) / 5),
        periods: Some(s * 10),
        throttled_periods: Some(s * 10),
        throttled: Some(second(s) / 2),
        quota: Some(50_000_000),
        period: Some(100_000_000),
        memory_usage: Some(s << 20),
        cpu_pressure: pressure,
        memory_pressure: pressure,
        io_pressure: pressure,
    }
}

pub fn sample(who: &Arc<Workload>, s: u64) -> Sample {
    Sample {
        who: who.clone(),
        cpu: Some(counters(s)),
        stat: stat(s),
        quota_cores: Some(0.5),
        network: None,
        reclaim: None,
        memory: None,
        last: false,
    }
}

/// A reading `s` seconds after the boot: each workload since then, each blamed by the first for its waits.
pub fn reading(all: &[Arc<Workload>], s: u64) -> Attributed {
    let blame = all.iter().skip(1).map(|culprit| NamedBlame {
        victim: all[0].clone(),
        culprit: culprit.clone(),
        ns: second(s) / 10,
    });
    Attributed {
        at: moment(s),
        samples: all.iter().map(|who| sample(who, s)).collect(),
        blame: blame.collect(),
        programs: vec![ProgramCost {
            name: "on_switch".into(),
            run_time: std::time::Duration::from_millis(s),
            runs: s,
        }],
        ..Attributed::default()
    }
}

/// A whisper in which everything is known.
pub fn whisper(who: &Arc<Workload>, signal: SignalKind, transition: Transition, s: u64) -> Whisper {
    let known = SignalEvidence { window_seconds: Some(10.5), ..SignalEvidence::default() };
    let mut evidence = known.with_all(|field| match field.kind {
        Type::Double => Value::Double(0.5),
        Type::Int => Value::Int(99),
        Type::Text => Value::Text("image".into()),
    });
    if let Some(cpu) = &mut evidence.cpu {
        let percents = (Some(79.5), Some(40.0));
        (cpu.throttled_percent, cpu.throttled_full_percent, cpu.periods) =
            (percents.0, percents.1, Some(100));
    }
    Whisper {
        signal,
        severity: Severity::Critical,
        transition,
        who: who.clone(),
        since: moment(s),
        at: moment(s + 3),
        evidence,
        neighbours: vec![Neighbour { who: container("batch", "noisy", "burner"), percent: 55.0 }],
        history: (0..120)
            .map(|i| HistoryPoint {
                unix_ns: moment(s + i).unix_ns,
                cpu_usage_ns: second(i),
                throttled_ns: second(i),
                throttled_wall_ns: Some(second(i)),
            })
            .collect(),
    }
}

/// A birth in which everything is known, with every phase and every actor.
pub fn birth(outcome: Option<BirthOutcome>, restart: bool) -> Certificate {
    let phase = |(n, phase): (usize, &Phase)| BirthPhase {
        name: phase.as_str().into(),
        container: (*phase >= Phase::Wait && *phase < Phase::Ready).then(|| "app".into()),
        start_ms: n as f64 * 50.0,
        duration_ms: 40.0,
        uncertainty_ms: matches!(phase, Phase::Scheduled | Phase::Ready).then_some(600.0),
    };
    let stats = KernelStats {
        total_syscalls: Some(12_194),
        namespaces_created: Some(7),
        cgroups_created: Some(30),
        cgroup_writes: Some(54),
        mounts: Some(48),
        processes: Some(18),
        total_duration_ms: Some(607.0),
        ..KernelStats::default()
    };
    let mut status = PodBirthCertificateStatus::of(Source::Kernel);
    status.outcome = outcome;
    status.failure = (outcome == Some(BirthOutcome::Failed)).then(|| BirthFailure {
        phase: "image".into(),
        container: Some("app".into()),
        reason: "ErrImagePull".into(),
        message: Some("no such image".into()),
    });
    status.slow = Some(SlowPhase {
        severity: crate::api::Severity::Warning,
        phase: "image".into(),
        took_ms: 5000.0,
        usual_ms: 900.0,
    });
    status.total = Some("607 ms".into());
    status.phases = Phase::ALL.iter().enumerate().map(phase).collect();
    status.kernel_stats = Some(stats);
    status.missing = vec![MissingPart { part: "mounts".into(), why: "not readable".into() }];
    status.restarts = vec![ContainerRestart { container: "app".into(), ..ContainerRestart::default() }];
    status.trace_id = Some("c1ba2c4a4b4d4030b51cb8a48857f2a0".into());
    let who =
        Workload { container: None, container_id: None, ..Workload::clone(&container("shop", "web", "app")) };
    let process = |(actor, phase)| Process {
        actor,
        phase,
        container: Some("app".into()),
        program: "runc".into(),
        tgid: 4711,
        start_ms: 350.5,
        end_ms: 380.25,
        failed: Some("exit status 1".into()),
        syscalls: Some(1338),
        cpu_ms: Some(12.5),
    };
    Certificate {
        who: Workload { kind: WorkloadKind::Pod, ..who },
        zero: moment(10),
        at: moment(12),
        status,
        processes: [
            (Actor::Kubelet, Phase::Create),
            (Actor::Runtime, Phase::Create),
            (Actor::Cni, Phase::Create),
            (Actor::Container, Phase::Create),
            (Actor::Runtime, Phase::Exec),
            (Actor::Container, Phase::Debug),
        ]
        .map(process)
        .into(),
        nth: 0,
        restart,
    }
}

/// A pod that lost packets, each way.
pub fn network() -> NetworkCounters {
    let mut network = NetworkCounters { packets: Some(PacketCounters::default()), ..Default::default() };
    [true, false].into_iter().for_each(|out| network.drops.count(DropReason::LISTEN_OVERFLOW, out, 1));
    network
}
