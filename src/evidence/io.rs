//! Block devices.

super::field::numbers! {
"I/O evidence"
/// What the kernel said about I/O within the window of a whisper. Absent is unknown, never zero.
IoNumbers {
    /// Share of the window in which at least one task waited for I/O (PSI).
    pressure_percent: f64, "%", "kernel_gossip.io.pressure.percent";
    /// Share of the window in which every task waited for I/O (PSI).
    pressure_full_percent: f64, "%", "kernel_gossip.io.pressure.full_percent";
    /// Time its threads slept for I/O, all together, as PSI counts it; for memory's sake is left out.
    thread_seconds: f64, "s", "kernel_gossip.io.thread.time";
}}
