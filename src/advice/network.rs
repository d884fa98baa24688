//! The network: what a reason for dropping packets asks for. Words and numbers alone: nothing here is changed for anybody.

use super::Recommendation;
use crate::evidence::SignalEvidence;

/// What to look at, by the kernel's reason.
const REASONS: [(&str, &str); 16] = [
    (
        "NETFILTER_DROP",
        "a rule dropped them (a NetworkPolicy, the node's iptables or nftables): look at the policies that select this pod, and \
         at the counters of the node's rules.",
    ),
    (
        "CONNTRACK_DROP",
        "the table of connections was full: compare net.netfilter.nf_conntrack_count with nf_conntrack_max on the node, and \
         raise that, or look for who opens so many connections.",
    ),
    (
        "SOCKET_RCVBUFF",
        "a socket's receive buffer was full: the program reads too slowly or in bursts. Let it read faster, or give it a \
         larger buffer (SO_RCVBUF, up to net.core.rmem_max of the node).",
    ),
    (
        "LISTEN_OVERFLOW",
        "a listening socket had no room for new connections: the program accepts too slowly. Let it accept faster, or \
         listen with a longer queue (its backlog, up to net.core.somaxconn of the pod).",
    ),
    (
        "LISTEN_DROP",
        "a listening socket refused new connections though its queue had room: too many half-open ones \
         (net.ipv4.tcp_max_syn_backlog of the pod, net.ipv4.tcp_syncookies), or no memory for them.",
    ),
    (
        "SOCKET_BACKLOG",
        "segments came faster than the program's CPU took them: look for CPU throttling, or a larger receive buffer.",
    ),
    (
        "QDISC_DROP",
        "an interface's queue dropped them: it was full, or its bandwidth is limited (kubernetes.io/egress-bandwidth).",
    ),
    (
        "NO_SOCKET",
        "nobody listens at the port: look for clients with an old address or port, or a program that is not up yet.",
    ),
    ("IP_INNOROUTES", "there is no route to where they went: look at the node's and the pod's routes."),
    ("IP_OUTNOROUTES", "there is no route to where they went: look at the node's and the pod's routes."),
    (
        "IP_RPFILTER",
        "they came by another way than answers would go (reverse path filter): net.ipv4.conf.*.rp_filter.",
    ),
    ("NEIGH_FAILED", "the next hop does not answer: whom they went to is gone, or is not in that network."),
    (
        "PKT_TOO_BIG",
        "they are larger than the path takes: compare the MTU of the pod with that of the node and the overlay.",
    ),
    ("NO_TX_TARGET", "the bridge has no port for them: whom they went to is gone, or its port is down."),
    ("TC_INGRESS", "a traffic control program dropped them, as policies in eBPF do: ask the network plugin."),
    ("TC_EGRESS", "a traffic control program dropped them, as policies in eBPF do: ask the network plugin."),
];

/// Of a pod whose packets were dropped.
pub fn dropped(numbers: &SignalEvidence) -> Recommendation {
    let network = numbers.network();
    let (Some(dropped), Some(all), Some(percent)) =
        (network.dropped_packets, network.packets, network.drop_percent)
    else {
        return Recommendation::none("no packet counts came with it.");
    };
    let sent = network.dropped_sent_packets.unwrap_or_default();
    let reason = network.reason.as_deref().unwrap_or("no reason");
    let what = REASONS.iter().find(|(name, _)| *name == reason).map_or(
        "the kernel has no plainer word for it: see include/net/dropreason-core.h of its source.",
        |(_, what)| what,
    );
    Recommendation::none(format!(
        "nothing in the pod's resources settles packet_drop. {dropped} of {all} packets ({percent:.1} %) were dropped, {sent} \
         of them on the way out, most for {reason}: {what}"
    ))
}

/// Of a pod that sent segments again.
pub fn retransmitted(numbers: &SignalEvidence) -> Recommendation {
    let network = numbers.network();
    let (Some(again), Some(all), Some(percent)) =
        (network.retransmitted_segments, network.segments, network.retransmit_percent)
    else {
        return Recommendation::none("no segment counts came with it.");
    };
    let [timeouts, tail_losses, syns, failed] =
        [network.timeouts, network.tail_losses, network.syn_retransmits, network.failed_connections]
            .map(Option::unwrap_or_default);
    let waits = timeouts.saturating_add(tail_losses);
    let what = if syns * 2 > again {
        format!(
            "Most are first segments of connections ({syns}; {failed} connections failed): nobody answers. Look at the policies and \
             firewalls between the two, whether who is called is still there, and whether its listening queue is full \
             (packet_drop with LISTEN_OVERFLOW there)."
        )
    } else {
        "Segments or their acknowledgements are lost: where packet_drop is said of this pod or of whom it talks to, it names \
         the reason on that node. Where none is, it is beyond: compare the MTU of the pods with that of the network between the \
         nodes, and look at the errors of the nodes' cards and switches. Where cpu_throttle is said of either, the \
         answers may be late, not lost."
            .to_owned()
    };
    Recommendation::none(format!(
        "nothing in the pod's resources settles tcp_retransmit. {again} of {all} segments ({percent:.1} %) were sent again, after \
         {waits} waits for an acknowledgement in vain. {what}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::Kind;
    use crate::evidence::NetworkNumbers;

    #[test]
    fn the_advice_is_by_reason_with_the_numbers() {
        let of = |reason: &str| {
            let network = NetworkNumbers {
                packets: Some(2000),
                dropped_packets: Some(100),
                drop_percent: Some(5.0),
                dropped_sent_packets: Some(0),
                reason: Some(reason.to_owned()),
                ..NetworkNumbers::default()
            };
            dropped(&SignalEvidence { network: Some(network), ..SignalEvidence::default() })
        };
        let advice = of("SOCKET_RCVBUFF");
        assert_eq!((advice.kind, advice.commands.len()), (Kind::None, 0));
        assert!(advice.text.contains("100 of 2000 packets (5.0 %)") && advice.text.contains("SO_RCVBUF"));
        assert!(of("NETFILTER_DROP").text.contains("NetworkPolicy"));
        assert!(of("XDP").text.contains("dropreason-core.h"));
    }

    #[test]
    fn connections_that_nobody_answers_are_another_case_than_losses() {
        let of = |syn_retransmits| {
            let network = NetworkNumbers {
                segments: Some(500),
                retransmitted_segments: Some(30),
                retransmit_percent: Some(6.0),
                timeouts: Some(12),
                syn_retransmits: Some(syn_retransmits),
                failed_connections: Some(4),
                ..NetworkNumbers::default()
            };
            retransmitted(&SignalEvidence { network: Some(network), ..SignalEvidence::default() })
        };
        let losses = of(2);
        assert_eq!((losses.kind, losses.commands.len()), (Kind::None, 0));
        assert!(
            losses.text.contains("30 of 500 segments (6.0 %)") && losses.text.contains("MTU"),
            "{}",
            losses.text
        );
        assert!(of(28).text.contains("28; 4 connections failed"), "{}", of(28).text);
        assert!(retransmitted(&SignalEvidence::default()).text.contains("no segment counts"));
    }
}
