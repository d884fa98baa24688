//! From an [`Account`] to the points of every workload metric: the one place that says which number goes
//! under which name. OTLP and Prometheus are both written from it.

use super::ledger::Account;
use crate::attribution::WorkloadKind;
use crate::bounds;
use crate::kernel::{CpuCounters, Log2Histogram, Pressure, TcpCounters};
use crate::names::metric::{self, Metric};

/// The value of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nanoseconds, published as seconds.
    Time(u64),
    Count(u64),
    Cores(f64),
    Level(i64),
    /// Durations, and their sum in ns.
    Durations(&'a Log2Histogram, u64),
}

/// Attributes of a point, in the order of [`Metric::attributes`]; an empty one is unknown.
pub type Values<'a> = &'a [&'a str];

/// Receives each point: the values of its attributes, its value, and when its counter began (ns since
/// the Unix epoch).
pub type Emit<'e> = &'e mut dyn FnMut(Values<'_>, Value<'_>, u64);

/// How one metric is read off an account.
pub struct Source {
    pub metric: &'static Metric,
    pub points: fn(&Account, Emit<'_>),
}

/// Every workload metric.
pub static SOURCES: [Source; metric::WORKLOAD.len()] = [
    Source { metric: &metric::CPU_RUN_TIME, points: |a, emit| probe(a, emit, |c| c.run) },
    Source { metric: &metric::CPU_TAKEN_TIME, points: taken },
    Source { metric: &metric::CPU_WAIT_TIME, points: wait },
    Source {
        metric: &metric::CPU_WAIT_DURATION,
        points: |a, emit| durations(a, emit, |c| (&c.wait_histogram, c.wait)),
    },
    Source {
        metric: &metric::CPU_STALL_DURATION,
        points: |a, emit| durations(a, emit, |c| (&c.stall_histogram, c.throttled_per_cpu)),
    },
    Source {
        metric: &metric::CPU_THROTTLED_PER_CPU_TIME,
        points: |a, emit| probe(a, emit, |c| c.throttled_per_cpu),
    },
    Source {
        metric: &metric::CPU_THROTTLED_WALL_TIME,
        points: |a, emit| probe(a, emit, |c| c.throttled_wall),
    },
    Source {
        metric: &metric::CPU_THROTTLED_FULL_TIME,
        points: |a, emit| probe(a, emit, |c| c.throttled_full),
    },
    Source {
        metric: &metric::CPU_THROTTLED_REPORTED_TIME,
        points: |a, emit| stat(a, emit, a.stat.throttled.map(Value::Time)),
    },
    Source { metric: &metric::CPU_USAGE_TIME, points: usage },
    Source {
        metric: &metric::CPU_PERIODS,
        points: |a, emit| stat(a, emit, a.stat.periods.map(Value::Count)),
    },
    Source {
        metric: &metric::CPU_THROTTLED_PERIODS,
        points: |a, emit| stat(a, emit, a.stat.throttled_periods.map(Value::Count)),
    },
    Source { metric: &metric::CPU_LIMIT, points: |a, emit| stat(a, emit, a.quota_cores.map(Value::Cores)) },
    Source { metric: &metric::CPU_NEIGHBOUR_TIME, points: neighbours },
    Source { metric: &metric::THREAD_TIME, points: thread_time },
    Source { metric: &metric::PRESSURE_SOME_TIME, points: |a, emit| pressure(a, emit, |p| Some(p.some)) },
    Source { metric: &metric::PRESSURE_FULL_TIME, points: |a, emit| pressure(a, emit, |p| p.full) },
    Source { metric: &metric::NETWORK_PACKETS, points: packets },
    Source { metric: &metric::NETWORK_DROPPED, points: dropped },
    Source {
        metric: &metric::NETWORK_TCP_SEGMENTS,
        points: |a, emit| segments(a, emit, |tcp| tcp.sent + tcp.retransmitted),
    },
    Source {
        metric: &metric::NETWORK_TCP_RETRANSMITTED,
        points: |a, emit| segments(a, emit, |tcp| tcp.retransmitted),
    },
    Source { metric: &metric::NETWORK_TCP_EVENTS, points: tcp_events },
    Source { metric: &metric::WHISPER_ACTIVE, points: whispers },
];

fn probe(a: &Account, emit: Emit<'_>, ns: fn(&CpuCounters) -> u64) {
    if let Some(cpu) = &a.cpu {
        emit(&[], Value::Time(ns(cpu)), a.probe_since);
    }
}

fn durations(a: &Account, emit: Emit<'_>, of: fn(&CpuCounters) -> (&Log2Histogram, u64)) {
    if let Some(cpu) = &a.cpu {
        let (histogram, sum) = of(cpu);
        emit(&[], Value::Durations(histogram, sum), a.probe_since);
    }
}

fn wait(a: &Account, emit: Emit<'_>) {
    let Some(cpu) = &a.cpu else { return };
    for (cause, ns) in [
        ("throttle", cpu.throttle),
        ("neighbour", cpu.neighbour),
        ("own", cpu.own),
        ("unattributed", cpu.unattributed),
    ] {
        emit(&[cause], Value::Time(ns), a.probe_since);
    }
}

/// What was on a CPU and did not get it; absent where nothing was taken, as some kernels cannot tell.
fn taken(a: &Account, emit: Emit<'_>) {
    let Some(cpu) = &a.cpu else { return };
    for (by, ns) in [("interrupts", cpu.interrupted), ("hypervisor", cpu.stolen)] {
        if ns > 0 {
            emit(&[by], Value::Time(ns), a.probe_since);
        }
    }
}

fn stat(a: &Account, emit: Emit<'_>, value: Option<Value<'_>>) {
    if let Some(value) = value {
        emit(&[], value, a.stat_since);
    }
}

/// CPU used; not of a pod's own cgroup, which would count its containers twice in a sum.
fn usage(a: &Account, emit: Emit<'_>) {
    if a.who.kind != WorkloadKind::Pod {
        stat(a, emit, a.stat.cpu_usage.map(Value::Time));
    }
}

fn neighbours(a: &Account, emit: Emit<'_>) {
    for share in &a.neighbours {
        let who = &share.who;
        let (namespace, pod) = (who.namespace.as_deref(), who.pod.as_deref());
        let label = who.label();
        let name = bounds::name(&label, bounds::NAME);
        let path = bounds::name(who.told_by_path().unwrap_or_default(), bounds::NAME);
        let values = [&*name, namespace.unwrap_or_default(), pod.unwrap_or_default(), &*path];
        emit(&values, Value::Time(share.ns), share.since);
    }
    if let Some(rest) = a.other_neighbours {
        emit(&["other", "", "", ""], Value::Time(rest.ns), rest.since);
    }
}

fn thread_time(a: &Account, emit: Emit<'_>) {
    let Some(cpu) = &a.cpu else { return };
    for (state, ns) in [
        ("ran", Some(cpu.run)),
        ("throttled", Some(cpu.throttle)),
        ("neighbour", Some(cpu.neighbour)),
        ("own", Some(cpu.own)),
        ("unattributed", Some(cpu.unattributed)),
        ("memory", cpu.memory),
        ("disk", Some(cpu.disk)),
    ] {
        if let Some(ns) = ns {
            emit(&[state], Value::Time(ns), a.probe_since);
        }
    }
}

fn pressure(a: &Account, emit: Emit<'_>, ns: fn(&Pressure) -> Option<u64>) {
    for (resource, pressure) in
        [("cpu", &a.stat.cpu_pressure), ("memory", &a.stat.memory_pressure), ("io", &a.stat.io_pressure)]
    {
        if let Some(ns) = pressure.as_ref().and_then(ns) {
            emit(&[resource], Value::Time(ns), a.stat_since);
        }
    }
}

fn packets(a: &Account, emit: Emit<'_>) {
    if let Some(packets) = a.network.and_then(|network| network.packets) {
        emit(&[], Value::Count(packets.packets), a.probe_since);
    }
}

fn tcp(a: &Account) -> Option<TcpCounters> {
    Some(a.network?.packets?.tcp)
}

fn segments(a: &Account, emit: Emit<'_>, count: fn(&TcpCounters) -> u64) {
    if let Some(tcp) = tcp(a) {
        emit(&[], Value::Count(count(&tcp)), a.probe_since);
    }
}

fn tcp_events(a: &Account, emit: Emit<'_>) {
    let Some(tcp) = tcp(a) else { return };
    for (event, count) in [
        ("timeout", tcp.timeouts),
        ("fast_retransmit", tcp.fast),
        ("slow_start_retransmit", tcp.slow_start),
        ("tail_loss", tcp.tail_losses),
        ("lost_retransmit", tcp.lost_again),
        ("syn_retransmit", tcp.syn),
        ("reset_sent", tcp.resets_sent),
        ("connection_reset", tcp.reset),
        ("connection_failed", tcp.failed),
    ] {
        emit(&[event], Value::Count(count), a.probe_since);
    }
}

fn dropped(a: &Account, emit: Emit<'_>) {
    let Some(network) = &a.network else { return };
    for dropped in network.drops.iter() {
        let direction = if dropped.out { "sent" } else { "received" };
        emit(&[dropped.reason.name(), direction], Value::Count(dropped.packets), a.probe_since);
    }
}

fn whispers(a: &Account, emit: Emit<'_>) {
    for (signal, severity, active) in &a.whispers {
        emit(&[signal.as_str(), severity.as_str()], Value::Level(i64::from(*active)), a.first_seen);
    }
}

/// The name of a kind of workload.
pub fn kind(of: WorkloadKind) -> &'static str {
    match of {
        WorkloadKind::Container => "container",
        WorkloadKind::Sandbox => "sandbox",
        WorkloadKind::Pod => "pod",
        WorkloadKind::Unit => "unit",
        WorkloadKind::Root => "root",
        WorkloadKind::Cgroup => "cgroup",
    }
}
