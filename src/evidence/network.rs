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
    /// Packets that its interfaces' own counters say were dropped, which is what the usual metrics report.
    interface_dropped_packets: i64, "{packet}", "kernel_gossip.network.interface.dropped.packets";
    /// TCP segments that it sent, those sent again among them.
    segments: i64, "{segment}", "kernel_gossip.network.tcp.segments";
    /// TCP segments that it sent again.
    retransmitted_segments: i64, "{segment}", "kernel_gossip.network.tcp.retransmitted.segments";
    /// Share of its segments that were sent again.
    retransmit_percent: f64, "%", "kernel_gossip.network.tcp.retransmitted.percent";
    /// Times that it waited for an acknowledgement in vain, at least 200 ms each.
    timeouts: i64, "{timeout}", "kernel_gossip.network.tcp.timeouts";
    /// Segments sent again soon, as acknowledgements of later ones asked for them: out of order perhaps, and not lost.
    fast_retransmits: i64, "{segment}", "kernel_gossip.network.tcp.fast_retransmits";
    /// Losses of the last that it had sent, which a probe repaired before a timeout.
    tail_losses: i64, "{loss}", "kernel_gossip.network.tcp.tail_losses";
    /// Segments sent again that were lost again.
    lost_retransmits: i64, "{segment}", "kernel_gossip.network.tcp.lost_retransmits";
    /// First segments of connections, or answers to them, that were sent again.
    syn_retransmits: i64, "{segment}", "kernel_gossip.network.tcp.syn_retransmits";
    /// Resets that it sent.
    resets_sent: i64, "{segment}", "kernel_gossip.network.tcp.resets_sent";
    /// Connections that were open and ended with a reset, whoever sent it.
    reset_connections: i64, "{connection}", "kernel_gossip.network.tcp.reset_connections";
    /// Connections that did not come about.
    failed_connections: i64, "{connection}", "kernel_gossip.network.tcp.failed_connections";
    /// Why most of them were dropped: the kernel's name for it, or the sender's words.
    reason: String, "", "kernel_gossip.network.dropped.reason";
    /// Packets dropped for each reason, the most first: number, direction, the kernel's name.
    reasons: String, "", "kernel_gossip.network.dropped.reasons";
}}
