//! Every name that leaves the agent, once. `docs/semconv/registry/` (OpenTelemetry
//! semantic-convention YAML) says what each means; a test holds the two together.

/// Resource attributes (OpenTelemetry semantic conventions).
pub mod resource {
    pub const NAMESPACE: &str = "k8s.namespace.name";
    pub const POD: &str = "k8s.pod.name";
    pub const POD_UID: &str = "k8s.pod.uid";
    pub const CONTAINER: &str = "k8s.container.name";
    pub const CONTAINER_ID: &str = "container.id";
    pub const NODE: &str = "k8s.node.name";
    /// The cgroup's path, for what is no pod's.
    pub const CGROUP: &str = "linux.cgroup.path";
    /// The systemd unit, or the runtime's container name, for what is no pod's.
    pub const UNIT: &str = "systemd.unit";
}

/// The event said on every transition and once a minute while active (LogRecord event name).
pub const WHISPER_EVENT: &str = "kernel_gossip.whisper";

/// Attributes of [`WHISPER_EVENT`]. Absent is unknown, never zero.
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

    /// double, percent 0..=100.
    pub const THROTTLED_PERCENT: &str = "kernel_gossip.cpu.throttled.percent";
    /// double, percent 0..=100.
    pub const THROTTLED_FULL_PERCENT: &str = "kernel_gossip.cpu.throttled.full_percent";
    /// double, seconds in the window, summed over CPUs.
    pub const THROTTLED_TIME: &str = "kernel_gossip.cpu.throttled.per_cpu_time";
    /// int.
    pub const STALLS: &str = "kernel_gossip.cpu.stall.count";
    /// double, seconds.
    pub const STALL_P99: &str = "kernel_gossip.cpu.stall.p99";
    /// int.
    pub const PERIODS: &str = "kernel_gossip.cpu.periods";
    /// int.
    pub const THROTTLED_PERIODS: &str = "kernel_gossip.cpu.throttled.periods";
    /// double, cores.
    pub const USAGE: &str = "kernel_gossip.cpu.usage";
    /// double, cores.
    pub const DEMAND: &str = "kernel_gossip.cpu.demand";
    /// double, cores; absent when unlimited.
    pub const LIMIT: &str = "kernel_gossip.cpu.limit";
    /// double, cores.
    pub const REQUEST: &str = "kernel_gossip.cpu.request";
    /// double, seconds in the window.
    pub const WAIT: &str = "kernel_gossip.cpu.wait.time";
    pub const WAIT_THROTTLE: &str = "kernel_gossip.cpu.wait.throttle";
    pub const WAIT_NEIGHBOUR: &str = "kernel_gossip.cpu.wait.neighbour";
    pub const WAIT_OWN: &str = "kernel_gossip.cpu.wait.own";
    pub const WAIT_UNATTRIBUTED: &str = "kernel_gossip.cpu.wait.unattributed";
    /// string[]: who ran meanwhile, the greatest share first; the arrays run in parallel, an
    /// unknown namespace or pod is an empty string.
    pub const NEIGHBOUR_NAMES: &str = "kernel_gossip.neighbour.names";
    pub const NEIGHBOUR_NAMESPACES: &str = "kernel_gossip.neighbour.namespaces";
    pub const NEIGHBOUR_PODS: &str = "kernel_gossip.neighbour.pods";
    /// double[], percent of the window.
    pub const NEIGHBOUR_PERCENTS: &str = "kernel_gossip.neighbour.percents";

    /// The history: int[] in parallel, oldest first; ns since the epoch, and cumulative ns.
    pub const HISTORY_TIME: &str = "kernel_gossip.history.time";
    pub const HISTORY_CPU_USAGE: &str = "kernel_gossip.history.cpu_usage";
    pub const HISTORY_THROTTLED: &str = "kernel_gossip.history.throttled";
    pub const HISTORY_THROTTLED_WALL: &str = "kernel_gossip.history.throttled_wall";
}
