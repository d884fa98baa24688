//! What the programs are told of this kernel by name: numbers of its enumerations move from release to release.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;

use crate::kernel::{DropReason, PacketCounters, TcpCounters};

/// Tables of counters, as `bpf/net_counters.h` has them.
const IP: usize = 1;
const IP6: usize = 2;
const TCP: usize = 3;
const LINUX: usize = 4;
const UDP: usize = 5;
const UDP6: usize = 6;
/// One more than the last of them.
const TABLES: usize = 7;
/// Room for the counters of one table, and for those of all before it.
const ROOM: u32 = 128;

/// Received and sent IP packets: what is sent is called otherwise before 6.7.
const RECEIVED: &str = "IPSTATS_MIB_INPKTS";
const SENT: &str = "IPSTATS_MIB_OUTREQUESTS";
const SENT_BEFORE: &str = "IPSTATS_MIB_OUTPKTS";

/// The counters that are read, in the order of [`counters`].
const COUNTERS: [(usize, &str); 19] = [
    (IP, RECEIVED),
    (IP, SENT),
    (IP6, RECEIVED),
    (IP6, SENT),
    (LINUX, "LINUX_MIB_LISTENOVERFLOWS"),
    (LINUX, "LINUX_MIB_LISTENDROPS"),
    (UDP, "UDP_MIB_RCVBUFERRORS"),
    (UDP6, "UDP_MIB_RCVBUFERRORS"),
    (TCP, "TCP_MIB_OUTSEGS"),
    (TCP, "TCP_MIB_RETRANSSEGS"),
    (LINUX, "LINUX_MIB_TCPTIMEOUTS"),
    (LINUX, "LINUX_MIB_TCPFASTRETRANS"),
    (LINUX, "LINUX_MIB_TCPSLOWSTARTRETRANS"),
    (LINUX, "LINUX_MIB_TCPLOSSPROBERECOVERY"),
    (LINUX, "LINUX_MIB_TCPLOSTRETRANSMIT"),
    (LINUX, "LINUX_MIB_TCPSYNRETRANS"),
    (TCP, "TCP_MIB_OUTRSTS"),
    (TCP, "TCP_MIB_ESTABRESETS"),
    (TCP, "TCP_MIB_ATTEMPTFAILS"),
];

/// What a namespace counts, as the programs read it.
pub fn counters(read: &[u64]) -> PacketCounters {
    let mut next = read.iter().copied();
    let mut next = || next.next().unwrap_or_default();
    // Fields are evaluated in the order in which they stand here.
    let packets = next() + next() + next() + next();
    let (overflows, drops) = (next(), next());
    PacketCounters {
        packets,
        listen_overflows: overflows,
        // Those counted one by one: a moment between the two is no refusal.
        listen_refusals: drops.saturating_sub(overflows),
        buffer_overflows: next() + next(),
        tcp: TcpCounters {
            sent: next(),
            retransmitted: next(),
            timeouts: next(),
            fast: next(),
            slow_start: next(),
            tail_losses: next(),
            lost_again: next(),
            syn: next(),
            resets_sent: next(),
            reset: next(),
            failed: next(),
        },
        ..PacketCounters::default()
    }
}

/// Reasons that are no loss: what nobody waited for, what was there already, what was for another machine, and what a
/// socket still had when it was closed. TCP_LISTEN_OVERFLOW is counted by the namespace's counter, which has it too.
const NO_LOSS: [&str; 14] = [
    "NOT_DROPPED_YET",
    "CONSUMED",
    "QUEUE_PURGE",
    "OTHERHOST",
    "PACKET_SOCK_ERROR",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_OLD_ACK",
    "TCP_OFOMERGE",
    "TCP_DUP_DATA",
    "TCP_CLOSE",
    "TCP_RESET",
    "TCP_RFC7323_PAWS_ACK",
    "TCP_LISTEN_OVERFLOW",
];

/// The part of a table that is read: its first counter, and how many; where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub first: u32,
    pub counters: u32,
    pub at: u32,
}

impl Span {
    pub fn bytes(&self) -> u32 {
        self.counters * size_of::<u64>() as u32
    }
}

/// Where the counters are in this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub spans: [Span; TABLES],
    /// Of each counter its place among all that was read; the first place is nobody's.
    pub places: [u32; COUNTERS.len()],
}

impl Layout {
    /// Of the counters' numbers in their tables; `None`: there is no room for them.
    fn of(numbers: &[u32; COUNTERS.len()]) -> Option<Layout> {
        let mut layout = Layout::default();
        let mut at = 1;
        for (table, span) in layout.spans.iter_mut().enumerate() {
            let of_table = || numbers.iter().zip(COUNTERS).filter(|(_, c)| c.0 == table).map(|(n, _)| *n);
            let Some((first, last)) = of_table().min().zip(of_table().max()) else { continue };
            *span = Span { first, counters: last - first + 1, at };
            if span.counters > ROOM || at >= ROOM {
                return None;
            }
            at += span.counters;
        }
        for ((place, number), (table, _)) in layout.places.iter_mut().zip(numbers).zip(COUNTERS) {
            let span = layout.spans[table];
            *place = span.at + number - span.first;
        }
        Some(layout)
    }

    /// Writes it where a program has it: its spans by `tell`, the type of which is each program's own.
    pub fn tell<S>(&self, spans: &mut [S], wanted: &mut [u32], tell: impl Fn(&mut S, &Span)) {
        spans.iter_mut().zip(&self.spans).for_each(|(to, span)| tell(to, span));
        wanted[..self.places.len()].copy_from_slice(&self.places);
    }
}

/// The counters of this kernel's namespaces.
#[derive(Clone, Debug)]
pub struct Counters {
    pub layout: Layout,
    /// What is sent is counted after OUTPUT: what is dropped there is not in it. Since 6.7 it is (b4a11b2033b7, "net: fix
    /// IPSTATS_MIB_OUTPKGS increment in OutForwarded").
    pub late: bool,
}

impl Counters {
    /// `None`: this kernel's types lack one.
    pub fn of(btf: &Btf<'_>) -> Option<Counters> {
        let (mut numbers, mut sent_before) = ([None; COUNTERS.len()], None);
        for members in btf.type_by_kind::<Enum<'_>>() {
            for member in members.iter() {
                let Some(name) = member.name else { continue };
                let number = member.value as u32;
                for (found, (_, wanted)) in numbers.iter_mut().zip(COUNTERS) {
                    if name == wanted {
                        *found = Some(number);
                    }
                }
                if name == SENT_BEFORE {
                    sent_before = Some(number);
                }
            }
        }
        let late = numbers.iter().zip(COUNTERS).any(|(n, c)| c.1 == SENT && n.is_none());
        let mut found = [0; COUNTERS.len()];
        for ((found, number), (_, name)) in found.iter_mut().zip(numbers).zip(COUNTERS) {
            *found = number.or(sent_before.filter(|_| name == SENT))?;
        }
        Some(Counters { layout: Layout::of(&found)?, late })
    }
}

/// The reasons that the programs know.
#[derive(Clone, Debug)]
pub struct Reasons {
    pub no_loss: Vec<u32>,
    pub unspecified: u32,
    pub no_socket: u32,
    pub netfilter: u32,
}

impl Reasons {
    /// `None`: this kernel has no such reasons.
    pub fn find() -> Option<Reasons> {
        let named = |name| DropReason::named(name).map(|reason| reason.0);
        Some(Reasons {
            no_loss: NO_LOSS.into_iter().filter_map(named).collect(),
            unspecified: named("NOT_SPECIFIED")?,
            no_socket: named("NO_SOCKET")?,
            netfilter: named("NETFILTER_DROP")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as in 6.18; those of a table lie in one piece, and each counter is found again.
    #[test]
    fn each_counter_has_a_place_of_its_own() {
        let numbers = [0, 8, 0, 8, 19, 20, 5, 5, 11, 12, 40, 38, 39, 42, 34, 97, 14, 8, 7];
        let layout = Layout::of(&numbers).expect("room");
        let mut places = layout.places;
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0] < two[1]) && places[0] >= 1, "{layout:?}");
        assert_eq!(layout.spans[LINUX], Span { first: 19, counters: 79, at: 27 });
        assert_eq!(layout.places[COUNTERS.iter().position(|c| c.1 == "LINUX_MIB_TCPTIMEOUTS").unwrap()], 48);
        let mut far = numbers;
        far[4] = 97 - 1 + 200;
        assert_eq!(Layout::of(&far), None, "more than there is room for");
    }

    #[test]
    fn counters_are_those_of_their_names() {
        let read: Vec<u64> = (1..=COUNTERS.len() as u64).collect();
        let counted = counters(&read);
        let at = |name: &str| read[COUNTERS.iter().position(|c| c.1.ends_with(name)).expect(name)];
        assert_eq!(counted.packets, 1 + 2 + 3 + 4);
        assert_eq!(counted.listen_overflows, at("LISTENOVERFLOWS"));
        assert_eq!(counted.listen_refusals, at("LISTENDROPS") - at("LISTENOVERFLOWS"));
        assert_eq!(counted.buffer_overflows, 7 + 8);
        let TcpCounters {
            sent, retransmitted, timeouts, fast, slow_start, tail_losses, lost_again, syn, ..
        } = counted.tcp;
        assert_eq!((sent, retransmitted), (at("OUTSEGS"), at("RETRANSSEGS")));
        assert_eq!((timeouts, fast, slow_start), (at("TIMEOUTS"), at("FASTRETRANS"), at("SLOWSTARTRETRANS")));
        assert_eq!((tail_losses, lost_again), (at("LOSSPROBERECOVERY"), at("LOSTRETRANSMIT")));
        assert_eq!(syn, at("SYNRETRANS"));
        let TcpCounters { resets_sent, reset, failed, .. } = counted.tcp;
        assert_eq!((resets_sent, reset, failed), (at("OUTRSTS"), at("ESTABRESETS"), at("ATTEMPTFAILS")));
    }
}
