//! Every name that leaves the agent, once. `docs/semconv/registry/` (OpenTelemetry semantic-convention YAML) says what
//! each means: its metrics are generated from [`metric`], the rest is compared by a test.
//!
//! Inside belongs what the agent's sinks write and the reconciler reads by name. The numbers of a signal, which an object has as well, are
//! [`crate::evidence`]'s; a form (OTLP's, Prometheus') is a sink's.

pub mod metric;

/// The semantic conventions whose names [`resource`] uses (the newest checked, from the PyPI package
/// `opentelemetry-semantic-conventions` 0.66b2).
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrumentation scope of all that the agent sends.
pub const SCOPE: &str = "kernel_gossip";

/// Resource attributes. `k8s.*` and `container.*` are OpenTelemetry's; what it has no name for has the
/// project's own prefix, for an attribute under another's prefix may come to mean something else there.
pub mod resource {
    pub const NAMESPACE: &str = "k8s.namespace.name";
    pub const POD: &str = "k8s.pod.name";
    pub const POD_UID: &str = "k8s.pod.uid";
    pub const CONTAINER: &str = "k8s.container.name";
    pub const CONTAINER_ID: &str = "container.id";
    pub const NODE: &str = "k8s.node.name";
    /// Of traces alone: stores of traces group by it.
    pub const SERVICE: &str = "service.name";
    /// The cgroup's path, for what is outside any pod, and for what a pod has beside its containers.
    pub const CGROUP: &str = "kernel_gossip.cgroup.path";
    /// The systemd unit, or the runtime's container name, for what is outside any pod.
    pub const UNIT: &str = "kernel_gossip.unit.name";
    /// `container`, `sandbox`, `pod`, `unit`, `root`, `cgroup`: on metrics, so that what contains others can be
    /// left out of sums.
    pub const KIND: &str = "kernel_gossip.workload.kind";
}

/// Attributes of data points.
pub mod attribute {
    /// `throttle`, `neighbour`, `own`, `unattributed`.
    pub const WAIT_CAUSE: &str = "kernel_gossip.cpu.wait.cause";
    /// `ran`, `throttled`, `neighbour`, `own`, `unattributed`, `memory`, `disk`.
    pub const THREAD_STATE: &str = "kernel_gossip.thread.state";
    /// `interrupts`, `hypervisor`.
    pub const TAKEN_BY: &str = "kernel_gossip.cpu.taken.by";
    /// `cpu`, `memory`, `io`.
    pub const PRESSURE_RESOURCE: &str = "kernel_gossip.pressure.resource";
    /// The kernel's name for it, or `LISTEN_OVERFLOW`, `OTHER`.
    pub const DROP_REASON: &str = "kernel_gossip.network.drop.reason";
    /// `sent`, `received`.
    pub const DIRECTION: &str = "kernel_gossip.network.direction";
    /// What went wrong on a connection: `timeout`, `syn_retransmit`, `reset_sent` and others.
    pub const TCP_EVENT: &str = "kernel_gossip.network.tcp.event";
    /// Who ran, as [`crate::attribution::Workload::label`] has it; `other` for all but the greatest.
    pub const NEIGHBOUR_NAME: &str = "kernel_gossip.neighbour.name";
    pub const NEIGHBOUR_NAMESPACE: &str = "kernel_gossip.neighbour.namespace";
    pub const NEIGHBOUR_POD: &str = "kernel_gossip.neighbour.pod";
    /// Its cgroup's path, where its name may be another's too.
    pub const NEIGHBOUR_CGROUP: &str = "kernel_gossip.neighbour.cgroup";
    /// Namespace and pod are absent where the neighbour is outside any pod, the cgroup where it is; the registry calls all
    /// others required.
    pub const OPTIONAL: [&str; 3] = [NEIGHBOUR_NAMESPACE, NEIGHBOUR_POD, NEIGHBOUR_CGROUP];
    pub const BPF_PROGRAM: &str = "kernel_gossip.agent.bpf.program";
    pub const LOSS_REASON: &str = "kernel_gossip.agent.loss.reason";
    /// `metrics`, `events`, `traces`.
    pub const EXPORT_KIND: &str = "kernel_gossip.agent.export.kind";
    /// `delivered`, `retried`, `refused`.
    pub const EXPORT_OUTCOME: &str = "kernel_gossip.agent.export.outcome";
}

/// The LogRecord's event name again, as an attribute: not every store of logs keeps the field.
pub const EVENT_NAME: &str = "event.name";

/// The event said on every transition and once a minute while active (LogRecord event name).
pub const WHISPER_EVENT: &str = "kernel_gossip.whisper";

/// The event said of each birth, and of each container that is started again (LogRecord event name).
pub const BIRTH_EVENT: &str = "kernel_gossip.birth";

/// Attributes of [`BIRTH_EVENT`]; those of a phase are of its spans too. Absent is unknown, never zero.
pub mod birth {
    /// string: `birth`, `restart`.
    pub const KIND: &str = "kernel_gossip.birth.kind";
    /// string: `complete`, `failed`, `unfinished`, `unknown` (a restart of a pod born before the agent).
    pub const OUTCOME: &str = "kernel_gossip.birth.outcome";
    /// double, seconds.
    pub const DURATION: &str = "kernel_gossip.birth.length";
    /// string: the phase it came to.
    pub const FAILURE_PHASE: &str = "kernel_gossip.birth.failure.phase";
    /// string: in one word.
    pub const FAILURE_REASON: &str = "kernel_gossip.birth.failure.reason";
    /// string: the phase that took far longer than it does on this node.
    pub const SLOW_PHASE: &str = "kernel_gossip.birth.slow.phase";
    /// int.
    pub const SYSCALLS: &str = "kernel_gossip.birth.syscalls";
    /// int.
    pub const NAMESPACES: &str = "kernel_gossip.birth.namespaces";
    /// int.
    pub const CGROUPS: &str = "kernel_gossip.birth.cgroups";
    /// int.
    pub const CGROUP_WRITES: &str = "kernel_gossip.birth.cgroup_writes";
    /// int.
    pub const MOUNTS: &str = "kernel_gossip.birth.mounts";
    /// int.
    pub const PROCESSES: &str = "kernel_gossip.birth.processes";
    /// string[]: the phases in the order they began; the arrays below are parallel to it.
    pub const PHASE_NAMES: &str = "kernel_gossip.birth.phase.names";
    /// string[]: the container, or empty.
    pub const PHASE_CONTAINERS: &str = "kernel_gossip.birth.phase.containers";
    /// string[]: `pulled`, `present`, or empty.
    pub const PHASE_IMAGES: &str = "kernel_gossip.birth.phase.images";
    /// double[], seconds after the zero.
    pub const PHASE_STARTS: &str = "kernel_gossip.birth.phase.starts";
    /// double[], seconds.
    pub const PHASE_DURATIONS: &str = "kernel_gossip.birth.phase.durations";
    /// string[]: the parts that are not known.
    pub const MISSING: &str = "kernel_gossip.birth.missing";
    /// string: the status of the PodBirthCertificate, as JSON.
    pub const CERTIFICATE: &str = "kernel_gossip.birth.certificate";

    /// string, of spans and metrics: `scheduled`, `cgroup`, …
    pub const PHASE: &str = "kernel_gossip.birth.phase.name";
    /// string, of spans: `scheduler`, `kubelet`, `runtime`, `cni`, `kernel`, `container`.
    pub const ACTOR: &str = "kernel_gossip.birth.actor";
    /// double, of spans, seconds: how much earlier it may have been.
    pub const UNCERTAINTY: &str = "kernel_gossip.birth.uncertainty";
    /// double, of spans, seconds on a CPU.
    pub const CPU: &str = "kernel_gossip.birth.cpu";
    /// OpenTelemetry's, of spans of processes.
    pub const PROCESS_ID: &str = "process.pid";
    pub const PROGRAM: &str = "process.executable.name";
}

/// Attributes of [`WHISPER_EVENT`], beside the numbers of [`crate::evidence`]. Absent is unknown, never zero.
pub mod whisper {
    /// string: `cpu_throttle`, `cpu_contention`, …
    pub const SIGNAL: &str = "kernel_gossip.whisper.signal";
    /// string: `warning`, `critical`.
    pub const SEVERITY: &str = "kernel_gossip.whisper.severity";
    /// string: `active`, `resolved`.
    pub const STATE: &str = "kernel_gossip.whisper.state";
    /// string: `started`, `changed`, `repeated`, `resolved`.
    pub const TRANSITION: &str = "kernel_gossip.whisper.transition";
    /// int, ns since the Unix epoch: when it started. With pod UID, container and signal it
    /// identifies the whisper.
    pub const SINCE: &str = "kernel_gossip.whisper.since";
    /// double, seconds: length of the window the evidence is about.
    pub const WINDOW: &str = "kernel_gossip.whisper.window";

    /// string[]: who ran meanwhile, the greatest share first; the arrays run in parallel, an
    /// unknown namespace or pod is an empty string.
    pub const NEIGHBOUR_NAMES: &str = "kernel_gossip.neighbour.names";
    pub const NEIGHBOUR_NAMESPACES: &str = "kernel_gossip.neighbour.namespaces";
    pub const NEIGHBOUR_PODS: &str = "kernel_gossip.neighbour.pods";
    /// double[], percent of the window, 0..=100: shares of the time in which at least one thread waited.
    pub const NEIGHBOUR_PERCENTS: &str = "kernel_gossip.neighbour.percents";

    /// The history: int[] in parallel, oldest first; ns since the epoch, and cumulative ns.
    pub const HISTORY_TIME: &str = "kernel_gossip.history.time";
    pub const HISTORY_CPU_USAGE: &str = "kernel_gossip.history.cpu_usage";
    pub const HISTORY_THROTTLED: &str = "kernel_gossip.history.throttled";
    pub const HISTORY_THROTTLED_WALL: &str = "kernel_gossip.history.throttled_wall";

    /// What every whisper has.
    pub const HEAD: [&str; 6] = [SIGNAL, SEVERITY, STATE, TRANSITION, SINCE, WINDOW];
    /// What some have beside their numbers.
    pub const LISTS: [&str; 8] = [
        NEIGHBOUR_NAMES,
        NEIGHBOUR_NAMESPACES,
        NEIGHBOUR_PODS,
        NEIGHBOUR_PERCENTS,
        HISTORY_TIME,
        HISTORY_CPU_USAGE,
        HISTORY_THROTTLED,
        HISTORY_THROTTLED_WALL,
    ];
}
