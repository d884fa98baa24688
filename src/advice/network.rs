//! The network: what a reason for dropping packets asks for. Words and numbers alone: nothing here is changed for anybody.

use super::Recommendation;
use crate::evidence::SignalEvidence;

/// What to look at, by the kernel's reason.
const REASONS: [(&str, &str); 14] = [
    (
        "NETFILTER_DROP",
        "a rule dropped them (a NetworkPolicy, the node's iptables or nftables), or the node's table of connections was \
         full: look at the policies that select this pod, at the counters of the node's rules, and compare \
         net.netfilter.nf_conntrack_count with nf_conntrack_max on the node.",
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
}
