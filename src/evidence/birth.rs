//! The start of a pod.

super::field::numbers! {
"Slow birth evidence"
/// The phase that made a birth slow. Absent is unknown, never zero.
BirthNumbers {
    /// The phase that took far longer than it does on this node.
    phase: String, "", "kernel_gossip.slow_birth.phase";
    /// How long it took.
    phase_seconds: f64, "s", "kernel_gossip.slow_birth.took";
    /// How long it usually takes: the median of the births before on this node.
    usual_seconds: f64, "s", "kernel_gossip.slow_birth.usual";
}}
