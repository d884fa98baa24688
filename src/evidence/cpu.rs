//! The CPU.

super::field::numbers! {
"CPU evidence"
/// What the kernel said about the CPU within the window of a whisper. Absent is unknown, never zero.
CpuNumbers {
    /// Throttled time, wall, as a share of the window.
    throttled_percent: f64, "%", "kernel_gossip.cpu.throttled.percent";
    /// Share of the window in which every CPU it wanted was throttled.
    throttled_full_percent: f64, "%", "kernel_gossip.cpu.throttled.full_percent";
    /// Throttled time, per CPU: the sum of the stalls (the term of cpu.stat).
    throttled_seconds: f64, "s", "kernel_gossip.cpu.throttled.per_cpu_time";
    /// Stalls that ended in the window.
    stalls: i64, "{stall}", "kernel_gossip.cpu.stall.count";
    /// The length that 99 % of the stalls did not exceed, as the upper bound of its bucket.
    stall_p99_seconds: f64, "s", "kernel_gossip.cpu.stall.p99";
    /// Periods in which the CPU quota was enforced.
    periods: i64, "{period}", "kernel_gossip.cpu.periods";
    /// Periods in which the CPU quota ran out, however shortly.
    throttled_periods: i64, "{period}", "kernel_gossip.cpu.throttled.periods";
    /// Length of these periods, as the kernel has it for the cgroup's own limit.
    period_seconds: f64, "s", "kernel_gossip.cpu.period";
    /// CPU used.
    usage_cores: f64, "{cpu}", "kernel_gossip.cpu.usage";
    /// At most so much it would have used without its limit: CPU used and throttled time per CPU together, within its
    /// threads' waits and the machine's CPUs.
    demand_cores: f64, "{cpu}", "kernel_gossip.cpu.demand";
    /// The CPU limit that binds; absent when unlimited.
    limit_cores: f64, "{cpu}", "kernel_gossip.cpu.limit";
    /// The CPU request, as the API server has it.
    request_cores: f64, "{cpu}", "kernel_gossip.cpu.request";
    /// What others say it used (webhook only).
    reported_usage_cores: f64, "{cpu}";
    /// Time runnable but not running.
    wait_seconds: f64, "s", "kernel_gossip.cpu.wait.time";
    /// The part of the wait in which the run queue was throttled.
    wait_throttle_seconds: f64, "s", "kernel_gossip.cpu.wait.throttle";
    /// The part of the wait in which another workload ran on the CPU.
    wait_neighbour_seconds: f64, "s", "kernel_gossip.cpu.wait.neighbour";
    /// The part of the wait in which another task of its own ran on the CPU.
    wait_own_seconds: f64, "s", "kernel_gossip.cpu.wait.own";
    /// The rest of the wait.
    wait_unattributed_seconds: f64, "s", "kernel_gossip.cpu.wait.unattributed";
    /// Of its time on a CPU, what the hypervisor took: the neighbours outside this machine (stolen time). Absent where nothing was
    /// taken, as some kernels cannot tell.
    taken_hypervisor_seconds: f64, "s", "kernel_gossip.cpu.taken.hypervisor";
    /// Of its time on a CPU, what interrupts took. Absent where nothing was taken, as some kernels cannot tell.
    taken_interrupts_seconds: f64, "s", "kernel_gossip.cpu.taken.interrupts";
    /// Time in which at least one of its threads waited for a CPU on which another workload ran, summed over CPUs; absent
    /// where the kernel cannot tell.
    contended_seconds: f64, "s", "kernel_gossip.cpu.contended.per_cpu_time";
    /// At most so much its neighbours took from it, within its limit and the machine's CPUs.
    lost_cores: f64, "{cpu}", "kernel_gossip.cpu.lost";
}}
