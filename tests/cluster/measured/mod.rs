//! Comparisons of what is told with what the kernel, containerd, the Metrics API or the clock say. What the machine does
//! meanwhile may be in the figures: `scripts/test` may repeat them.

/// On a cluster that does nothing else.
pub mod alone {
    mod bursts;
    mod latency;
    mod speed;
    pub mod started;
    mod straced;
}

/// Beside other tests: both sides are of the same moments.
mod beside {
    mod limited;
    mod metrics;
}
