//! What the programs are told of this kernel by name: numbers of its enumerations move from release to release.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;

use crate::kernel::DropReason;

/// Tables of counters, as `bpf/net.h` has them.
const IP: u32 = 1;
const IP6: u32 = 2;
const LINUX: u32 = 4;

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

/// A counter of a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub mib: u32,
    pub index: u32,
}

/// What the programs count by.
#[derive(Clone, Debug)]
pub struct Names {
    pub no_loss: Vec<u32>,
    pub unspecified: u32,
    pub no_socket: u32,
    /// Received and sent by IPv4, then IPv6, and overflows of listening sockets.
    pub wanted: [Wanted; 5],
    /// What is sent is counted after OUTPUT: what is dropped there is not in it. Since 6.7 it is (b4a11b2033b7, "net: fix
    /// IPSTATS_MIB_OUTPKGS increment in OutForwarded").
    pub counts_late: bool,
}

impl Names {
    /// `None`: this kernel's types lack a name.
    pub fn of(btf: &Btf<'_>) -> Option<Names> {
        let mut values = [None; 4];
        let wanted = [
            "IPSTATS_MIB_INPKTS",
            "IPSTATS_MIB_OUTREQUESTS",
            "IPSTATS_MIB_OUTPKTS",
            "LINUX_MIB_LISTENOVERFLOWS",
        ];
        for members in btf.type_by_kind::<Enum<'_>>() {
            for member in members.iter() {
                let at = wanted.iter().position(|name| member.name.is_some_and(|n| n == *name));
                if let Some(at) = at {
                    values[at] = Some(member.value as u32);
                }
            }
        }
        let [received, requests, packets, overflows] = values;
        let (received, sent) = (received?, requests.or(packets)?);
        let ip = |mib, index| Wanted { mib, index };
        Some(Names {
            no_loss: NO_LOSS.iter().filter_map(|name| DropReason::named(name)).map(|r| r.0).collect(),
            unspecified: DropReason::named("NOT_SPECIFIED")?.0,
            no_socket: DropReason::named("NO_SOCKET")?.0,
            wanted: [ip(IP, received), ip(IP, sent), ip(IP6, received), ip(IP6, sent), ip(LINUX, overflows?)],
            counts_late: requests.is_none(),
        })
    }
}
