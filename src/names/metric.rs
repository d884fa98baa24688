//! Every metric, in one table: [`WORKLOAD`] about workloads, [`AGENT`] about the agent itself.
//! `scripts/generate` writes it to `docs/metrics.md` and to the registry.

use super::{attribute, birth, whisper};

/// What a metric's values are, in OpenTelemetry's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down; sums over workloads make sense.
    UpDownCounter,
    /// Goes up and down.
    Gauge,
    Histogram,
}

impl Kind {
    /// The instrument's name in a semantic-convention registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::UpDownCounter => "updowncounter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric: its names and what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    /// UCUM: `s`, `By`, or what is counted in braces.
    pub unit: &'static str,
    pub kind: Kind,
    /// One sentence, without a full stop.
    pub description: &'static str,
    /// Attributes its points may have.
    pub attributes: &'static [&'static str],
}

impl Metric {
    /// The unit as Prometheus writes it at the end of a name; `None` for what is only counted.
    pub fn prometheus_unit(&self) -> Option<&'static str> {
        match self.unit {
            "s" => Some("seconds"),
            "By" => Some("bytes"),
            _ => None,
        }
    }

    /// The name in Prometheus without unit and `_total`.
    pub fn prometheus_base(&self) -> String {
        prometheus_name(self.name)
    }

    /// The name in Prometheus, as OpenTelemetry's rules make it. A histogram's series are this with
    /// `_bucket`, `_sum` and `_count`.
    pub fn prometheus(&self) -> String {
        let mut name = self.prometheus_base();
        if let Some(unit) = self.prometheus_unit() {
            name.push('_');
            name.push_str(unit);
        }
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// A metric or attribute name as Prometheus has it.
pub fn prometheus_name(name: &str) -> String {
    name.replace('.', "_")
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    description: &'static str,
    attributes: &'static [&'static str],
) -> Metric {
    Metric { name, unit, kind, description, attributes }
}

pub static CPU_RUN_TIME: Metric = metric(
    "kernel_gossip.cpu.run.time",
    "s",
    Kind::Counter,
    "Time on a CPU, as the scheduler switched it",
    &[],
);
pub static CPU_TAKEN_TIME: Metric = metric(
    "kernel_gossip.cpu.taken.time",
    "s",
    Kind::Counter,
    "The part of the time on a CPU in which it did not get anything done: by who took the CPU meanwhile; absent while nothing was",
    &[attribute::TAKEN_BY],
);
pub static CPU_WAIT_TIME: Metric = metric(
    "kernel_gossip.cpu.wait.time",
    "s",
    Kind::Counter,
    "Time runnable but not running, by what held it up",
    &[attribute::WAIT_CAUSE],
);
pub static CPU_WAIT_DURATION: Metric = metric(
    "kernel_gossip.cpu.wait.duration",
    "s",
    Kind::Histogram,
    "How long each wait for a CPU was, from runnable to running",
    &[],
);
pub static CPU_STALL_DURATION: Metric = metric(
    "kernel_gossip.cpu.stall.duration",
    "s",
    Kind::Histogram,
    "How long each stall was: one run queue, throttled by the CPU quota",
    &[],
);
pub static CPU_THROTTLED_PER_CPU_TIME: Metric = metric(
    "kernel_gossip.cpu.throttled.per_cpu.time",
    "s",
    Kind::Counter,
    "Throttled time, per CPU: the sum of the stalls, more than wall time on several CPUs",
    &[],
);
pub static CPU_THROTTLED_WALL_TIME: Metric = metric(
    "kernel_gossip.cpu.throttled.wall.time",
    "s",
    Kind::Counter,
    "Throttled time, wall: while at least one CPU was stalled",
    &[],
);
pub static CPU_THROTTLED_FULL_TIME: Metric = metric(
    "kernel_gossip.cpu.throttled.full.time",
    "s",
    Kind::Counter,
    "The part of the wall throttled time in which no CPU ran it",
    &[],
);
pub static CPU_THROTTLED_REPORTED_TIME: Metric = metric(
    "kernel_gossip.cpu.throttled.reported.time",
    "s",
    Kind::Counter,
    "Throttled time as cpu.stat reports it, for the cgroup that has the quota itself",
    &[],
);
pub static CPU_USAGE_TIME: Metric =
    metric("kernel_gossip.cpu.usage.time", "s", Kind::Counter, "CPU time used, as cpu.stat reports it", &[]);
pub static CPU_PERIODS: Metric = metric(
    "kernel_gossip.cpu.periods",
    "{period}",
    Kind::Counter,
    "Periods in which the CPU quota was enforced",
    &[],
);
pub static CPU_THROTTLED_PERIODS: Metric = metric(
    "kernel_gossip.cpu.throttled.periods",
    "{period}",
    Kind::Counter,
    "Periods in which the CPU quota ran out, however shortly",
    &[],
);
pub static CPU_LIMIT: Metric = metric(
    "kernel_gossip.cpu.limit",
    "{cpu}",
    Kind::Gauge,
    "The CPU quota that binds, its own or an ancestor's; absent without one",
    &[],
);
pub static CPU_NEIGHBOUR_TIME: Metric = metric(
    "kernel_gossip.cpu.neighbour.time",
    "s",
    Kind::Counter,
    "Time it waited while this neighbour ran on the CPU it waited for",
    &[
        attribute::NEIGHBOUR_NAME,
        attribute::NEIGHBOUR_NAMESPACE,
        attribute::NEIGHBOUR_POD,
        attribute::NEIGHBOUR_CGROUP,
    ],
);
pub static THREAD_TIME: Metric = metric(
    "kernel_gossip.thread.time",
    "s",
    Kind::Counter,
    "Where the time of its threads went, all together: what they were asleep for beside memory and disks is not counted",
    &[attribute::THREAD_STATE],
);
pub static PRESSURE_SOME_TIME: Metric = metric(
    "kernel_gossip.pressure.some.time",
    "s",
    Kind::Counter,
    "Time in which at least one task waited for the resource (PSI)",
    &[attribute::PRESSURE_RESOURCE],
);
pub static PRESSURE_FULL_TIME: Metric = metric(
    "kernel_gossip.pressure.full.time",
    "s",
    Kind::Counter,
    "Time in which every task waited for the resource (PSI)",
    &[attribute::PRESSURE_RESOURCE],
);
pub static NETWORK_PACKETS: Metric = metric(
    "kernel_gossip.network.packets",
    "{packet}",
    Kind::Counter,
    "IP packets sent and received by a pod with a network of its own, those dropped among them",
    &[],
);
pub static NETWORK_DROPPED: Metric = metric(
    "kernel_gossip.network.dropped",
    "{packet}",
    Kind::Counter,
    "Packets that the kernel dropped, by its reason and direction",
    &[attribute::DROP_REASON, attribute::DIRECTION],
);
pub static NETWORK_TCP_SEGMENTS: Metric = metric(
    "kernel_gossip.network.tcp.segments",
    "{segment}",
    Kind::Counter,
    "TCP segments sent by a pod with a network of its own, those sent again among them",
    &[],
);
pub static NETWORK_TCP_RETRANSMITTED: Metric = metric(
    "kernel_gossip.network.tcp.retransmitted",
    "{segment}",
    Kind::Counter,
    "TCP segments sent again",
    &[],
);
pub static NETWORK_TCP_EVENTS: Metric = metric(
    "kernel_gossip.network.tcp.events",
    "{event}",
    Kind::Counter,
    "What went wrong on TCP connections, by the kernel's counters",
    &[attribute::TCP_EVENT],
);
pub static WHISPER_ACTIVE: Metric = metric(
    "kernel_gossip.whisper.active",
    "{whisper}",
    Kind::UpDownCounter,
    "Whispers active now; zero for one that was",
    &[whisper::SIGNAL, whisper::SEVERITY],
);

/// About workloads, each with its own Resource.
pub static WORKLOAD: [&Metric; 23] = [
    &CPU_RUN_TIME,
    &CPU_TAKEN_TIME,
    &CPU_WAIT_TIME,
    &CPU_WAIT_DURATION,
    &CPU_STALL_DURATION,
    &CPU_THROTTLED_PER_CPU_TIME,
    &CPU_THROTTLED_WALL_TIME,
    &CPU_THROTTLED_FULL_TIME,
    &CPU_THROTTLED_REPORTED_TIME,
    &CPU_USAGE_TIME,
    &CPU_PERIODS,
    &CPU_THROTTLED_PERIODS,
    &CPU_LIMIT,
    &CPU_NEIGHBOUR_TIME,
    &THREAD_TIME,
    &PRESSURE_SOME_TIME,
    &PRESSURE_FULL_TIME,
    &NETWORK_PACKETS,
    &NETWORK_DROPPED,
    &NETWORK_TCP_SEGMENTS,
    &NETWORK_TCP_RETRANSMITTED,
    &NETWORK_TCP_EVENTS,
    &WHISPER_ACTIVE,
];

pub static AGENT_BPF_RUN_TIME: Metric = metric(
    "kernel_gossip.agent.bpf.run.time",
    "s",
    Kind::Counter,
    "Time spent in the agent's BPF programs, while kernel.bpf_stats_enabled is on",
    &[attribute::BPF_PROGRAM],
);
pub static AGENT_BPF_RUNS: Metric = metric(
    "kernel_gossip.agent.bpf.runs",
    "{run}",
    Kind::Counter,
    "Runs of the agent's BPF programs, while kernel.bpf_stats_enabled is on",
    &[attribute::BPF_PROGRAM],
);
pub static AGENT_BPF_MAP_SIZE: Metric = metric(
    "kernel_gossip.agent.bpf.map.size",
    "By",
    Kind::UpDownCounter,
    "Kernel memory of the agent's BPF maps",
    &[],
);
pub static AGENT_LOSSES: Metric = metric(
    "kernel_gossip.agent.losses",
    "{loss}",
    Kind::Counter,
    "What was lost, counted where it was lost",
    &[attribute::LOSS_REASON],
);
pub static AGENT_BLAME_LOST_TIME: Metric = metric(
    "kernel_gossip.agent.blame.lost.time",
    "s",
    Kind::Counter,
    "Wait for neighbours that has no name: the table of victims and culprits was full, or the wait outlasted the history of who ran",
    &[],
);
pub static AGENT_READING_DURATION: Metric = metric(
    "kernel_gossip.agent.reading.duration",
    "s",
    Kind::Histogram,
    "How long each reading took, from the kernel to the sinks",
    &[],
);
pub static AGENT_WORKLOAD_KNOWN: Metric = metric(
    "kernel_gossip.agent.workload.known",
    "{workload}",
    Kind::UpDownCounter,
    "Workloads in the last reading",
    &[],
);
pub static AGENT_POD_KNOWN: Metric = metric(
    "kernel_gossip.agent.pod.known",
    "{pod}",
    Kind::UpDownCounter,
    "Pods of this node that the API server has reported",
    &[],
);
pub static AGENT_QUEUE_SIZE: Metric = metric(
    "kernel_gossip.agent.queue.size",
    "By",
    Kind::UpDownCounter,
    "Encoded data that waits to be exported",
    &[attribute::EXPORT_KIND],
);
pub static AGENT_QUEUE_LENGTH: Metric = metric(
    "kernel_gossip.agent.queue.length",
    "{item}",
    Kind::UpDownCounter,
    "Data points or events that wait to be exported",
    &[attribute::EXPORT_KIND],
);
pub static AGENT_EXPORTS: Metric = metric(
    "kernel_gossip.agent.exports",
    "{request}",
    Kind::Counter,
    "Export requests, by how they ended",
    &[attribute::EXPORT_KIND, attribute::EXPORT_OUTCOME],
);
pub static AGENT_EXPORTED_ITEMS: Metric = metric(
    "kernel_gossip.agent.exported.items",
    "{item}",
    Kind::Counter,
    "Data points or events that a receiver accepted",
    &[attribute::EXPORT_KIND],
);
pub static BIRTH_DURATION: Metric = metric(
    "kernel_gossip.birth.duration",
    "s",
    Kind::Histogram,
    "How long the births of this node's pods took",
    &[birth::OUTCOME],
);
pub static BIRTH_PHASE_DURATION: Metric = metric(
    "kernel_gossip.birth.phase.duration",
    "s",
    Kind::Histogram,
    "How long the phases of complete births took",
    &[birth::PHASE],
);
pub static AGENT_MEMORY: Metric =
    metric("process.memory.usage", "By", Kind::UpDownCounter, "The amount of physical memory in use", &[]);

/// About the agent itself.
pub static AGENT: [&Metric; 15] = [
    &AGENT_BPF_RUN_TIME,
    &AGENT_BPF_RUNS,
    &AGENT_BPF_MAP_SIZE,
    &AGENT_LOSSES,
    &AGENT_BLAME_LOST_TIME,
    &AGENT_READING_DURATION,
    &AGENT_WORKLOAD_KNOWN,
    &AGENT_POD_KNOWN,
    &AGENT_QUEUE_SIZE,
    &AGENT_QUEUE_LENGTH,
    &AGENT_EXPORTS,
    &AGENT_EXPORTED_ITEMS,
    &BIRTH_DURATION,
    &BIRTH_PHASE_DURATION,
    &AGENT_MEMORY,
];
