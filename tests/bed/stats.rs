//! The kernel's count of what BPF programs cost.

use std::fs;

/// `kernel.bpf_stats_enabled`, put back when dropped.
pub struct StatsEnabled(String);

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl StatsEnabled {
    pub fn new() -> Self {
        let before = fs::read_to_string(STATS).expect(STATS);
        fs::write(STATS, "1").expect(STATS);
        StatsEnabled(before)
    }
}

impl Drop for StatsEnabled {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}
