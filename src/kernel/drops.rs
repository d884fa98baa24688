//! Packets of a network namespace or a workload, and why some of them were dropped.

use std::collections::HashMap;
use std::sync::LazyLock;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;

/// Why a packet was dropped: the kernel's own number for it, which differs from kernel to kernel, or one of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropReason(pub u32);

/// Names of this kernel's reasons.
static NAMES: LazyLock<HashMap<u32, String>> = LazyLock::new(|| {
    Btf::from_path("/sys/kernel/btf/vmlinux").map_or_else(|_| HashMap::new(), |btf| names(&btf))
});

/// What each reason's name begins with.
const PREFIX: &str = "SKB_DROP_REASON_";

impl DropReason {
    /// A connection that a listening socket had no room for: of the namespace's counter, as the kernel gives no reason.
    pub const LISTEN_OVERFLOW: DropReason = DropReason(u32::MAX);
    /// More reasons than are kept apart.
    pub const OTHER: DropReason = DropReason(u32::MAX - 1);
    /// A connection that a listening socket refused though its queue had room.
    pub const LISTEN_REFUSAL: DropReason = DropReason(u32::MAX - 2);
    /// The table of connections (conntrack) took it not in, as it does when it is full: to the kernel a rule's doing.
    pub const CONNTRACK_DROP: DropReason = DropReason(u32::MAX - 3);
    /// A socket's receive buffer was full: by the namespace's counter, on kernels that give no reasons.
    pub const BUFFER_OVERFLOW: DropReason = DropReason(u32::MAX - 4);

    /// The kernel's name without its prefix: `NETFILTER_DROP`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::LISTEN_OVERFLOW => "LISTEN_OVERFLOW",
            DropReason::OTHER => "OTHER",
            DropReason::LISTEN_REFUSAL => "LISTEN_DROP",
            DropReason::CONNTRACK_DROP => "CONNTRACK_DROP",
            DropReason::BUFFER_OVERFLOW => "SOCKET_RCVBUFF",
            DropReason(number) => NAMES.get(&number).map_or("UNKNOWN", String::as_str),
        }
    }

    /// The reason of this name, if this kernel has it.
    pub fn named(name: &str) -> Option<DropReason> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| DropReason(*number))
    }
}

/// Of the core, and of the parts that have reasons of their own (high 16 bits), as Open vSwitch.
fn names(btf: &Btf<'_>) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    let of_reasons =
        |e: &Enum<'_>| e.name().is_some_and(|name| name.to_string_lossy().ends_with("_drop_reason"));
    for reasons in btf.type_by_kind::<Enum<'_>>().filter(of_reasons) {
        for member in reasons.iter() {
            let Some(name) = member.name.map(|name| name.to_string_lossy()) else { continue };
            let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
            names.insert(member.value as u32, name);
        }
    }
    names
}

/// Packets dropped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub reason: DropReason,
    /// The workload sent them; else they were for it.
    pub out: bool,
    pub packets: u64,
}

/// Reasons of a workload that are kept apart; the rest is [`DropReason::OTHER`].
pub const REASONS: usize = 8;

/// Packets dropped by reason and direction, cumulative. A place once taken stays, so that each number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropsByReason([Dropped; REASONS]);

impl DropsByReason {
    /// Adds packets. The last two places are for all that finds no other, one a direction.
    pub fn count(&mut self, reason: DropReason, out: bool, packets: u64) {
        let (own, rest) = self.0.split_at_mut(REASONS - 2);
        let place = own.iter_mut().find(|d| d.packets == 0 || (d.reason, d.out) == (reason, out));
        let (place, reason) = match place {
            Some(place) => (place, reason),
            None => (&mut rest[usize::from(out)], DropReason::OTHER),
        };
        *place = Dropped { reason, out, packets: place.packets + packets };
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Dropped> {
        self.0.iter().filter(|dropped| dropped.packets > 0)
    }

    /// The growth since an earlier state, the most first.
    pub fn since(&self, earlier: &Self) -> Vec<Dropped> {
        let grown = |(now, then): (&Dropped, &Dropped)| Dropped {
            packets: now.packets.saturating_sub(then.packets),
            ..*now
        };
        let mut all: Vec<_> = self.0.iter().zip(&earlier.0).map(grown).filter(|d| d.packets > 0).collect();
        all.sort_by_key(|d| std::cmp::Reverse(d.packets));
        all
    }
}

super::counters::counters! {
    /// Packets of a workload, cumulative. Both ends count IP packets as the kernel handles them: what a card or a cable
    /// takes in one piece, up to 64 KiB, is one.
    pub struct PacketCounters {
        /// Received and sent, with those that were dropped before the kernel counted them.
        pub packets: u64,
        /// Dropped on the way out.
        pub dropped_out: u64,
        /// Dropped on the way in.
        pub dropped_in: u64,
        /// Connections that found a listening socket's queue full.
        pub listen_overflows: u64,
        /// Connections that a listening socket refused for another reason: too many half-open ones, or no memory.
        pub listen_refusals: u64,
        /// Datagrams that found a UDP socket's receive buffer full.
        pub buffer_overflows: u64,
        /// What its interfaces' own counters say was dropped, and so the usual metrics; `None`: they cannot be read.
        pub interface_dropped: Option<u64>,
        pub tcp: TcpCounters,
    }
}

super::counters::counters! {
    /// Segments of a network namespace, cumulative, as the kernel counts them: those of a large packet each for itself.
    pub struct TcpCounters {
        /// Sent for the first time (OutSegs).
        pub sent: u64,
        /// Sent again (RetransSegs).
        pub retransmitted: u64,
        /// Waits for an acknowledgement that ran out (TCPTimeouts).
        pub timeouts: u64,
        /// Segments sent again as duplicate acknowledgements asked for them (TCPFastRetrans).
        pub fast: u64,
        /// Segments sent again on the way back from a timeout (TCPSlowStartRetrans).
        pub slow_start: u64,
        /// Losses at the end of what was sent that a probe repaired, before a timeout (TCPLossProbeRecovery).
        pub tail_losses: u64,
        /// Segments sent again that were lost again (TCPLostRetransmit).
        pub lost_again: u64,
        /// SYNs and answers to them that were sent again (TCPSynRetrans).
        pub syn: u64,
        /// Resets sent (OutRsts).
        pub resets_sent: u64,
        /// Connections that were open and ended with a reset, from either side (EstabResets).
        pub reset: u64,
        /// Connections that did not come about (AttemptFails).
        pub failed: u64,
    }
}

/// What is known of a workload's packets, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// `None`: it has no network namespace of its own, so that nobody counts what it sends and receives.
    pub packets: Option<PacketCounters>,
    pub drops: DropsByReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_kernels_names() {
        let reason = DropReason::named("NOT_SPECIFIED").expect("since 5.17");
        assert_eq!(reason.name(), "NOT_SPECIFIED");
        assert_ne!(DropReason::named("NETFILTER_DROP"), None);
        assert_eq!(DropReason(12_345).name(), "UNKNOWN");
    }

    #[test]
    fn more_reasons_than_places_are_one() {
        let mut drops = DropsByReason::default();
        for reason in 1..=20 {
            drops.count(DropReason(reason), reason % 2 == 0, 10);
        }
        let before = drops;
        drops.count(DropReason(3), false, 5);
        drops.count(DropReason(19), false, 1);
        let total: u64 = drops.iter().map(|d| d.packets).sum();
        assert_eq!((total, drops.iter().count()), (206, REASONS));
        let grown = drops.since(&before);
        let expected = [(DropReason(3), 5), (DropReason::OTHER, 1)];
        assert_eq!(grown.iter().map(|d| (d.reason, d.packets)).collect::<Vec<_>>(), expected);
    }
}
