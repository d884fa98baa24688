//! The network.

super::field::numbers! {
"Network evidence"
/// What the kernel, or others, said about the network within the window of a whisper. Absent is unknown, never zero.
NetworkNumbers {
    /// IP packets that were sent and received, those dropped among them.
    packets: i64, "{packet}", "kernel_gossip.network.packets";
    /// Packets that were dropped.
    dropped_packets: i64, "{packet}", "kernel_gossip.network.dropped.packets";
    /// Share of its packets that were dropped.
    drop_percent: f64, "%", "kernel_gossip.network.dropped.percent";
    /// Packets that it sent and that were dropped.
    dropped_sent_packets: i64, "{packet}", "kernel_gossip.network.dropped.sent.packets";
    /// Packets for it that were dropped.
    dropped_received_packets: i64, "{packet}", "kernel_gossip.network.dropped.received.packets";
    /// Share of its segments that were sent again.
    retransmit_percent: f64, "%";
    /// Why most of them were dropped: the kernel's name for it, or the sender's words.
    reason: String, "", "kernel_gossip.network.dropped.reason";
    /// Packets dropped for each reason, the most first: number, direction, the kernel's name.
    reasons: String, "", "kernel_gossip.network.dropped.reasons";
}}
