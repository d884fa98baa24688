//! The network, of which only others report so far.

super::field::numbers! {
"Network evidence"
/// What others said about the network within the window of a whisper. Absent is unknown, never zero.
NetworkNumbers {
    /// Packets that were dropped.
    dropped_packets: i64, "{packet}";
    /// Share of its packets that were dropped.
    drop_percent: f64, "%";
    /// Share of its segments that were sent again.
    retransmit_percent: f64, "%";
    /// Why they were dropped, in the sender's words.
    reason: String, "";
}}
