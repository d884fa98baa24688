use super::*;
use crate::kernel::{CgroupKey, Hierarchy, NamespaceReading, NetworkCounters};

const NETFILTER: DropReason = DropReason(11);

fn cgroup(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id }
}

/// Pods 1 and 2, each alone in a namespace of its own (101, 102); 3, 4 and 5 on the host's (100).
#[derive(Default)]
struct Node {
    networks: Networks,
    of: [Option<NetworkCounters>; 6],
}

impl Node {
    fn new() -> Node {
        let mut node = Node::default();
        node.read(&[], 0);
        node
    }

    fn read(&mut self, drops: &[DropReading], packets: u64) {
        self.read_with(drops, packets, 0);
    }

    fn read_with(&mut self, drops: &[DropReading], packets: u64, conntrack_full: u64) {
        let members = [(101, 1), (102, 2), (100, 3), (100, 4), (100, 5), (100, 3)];
        let counters = PacketCounters { packets, ..PacketCounters::default() };
        let reading = Reading {
            members: members.map(|(space, id)| (space, cgroup(id))).into(),
            namespaces: [100, 101, 102]
                .map(|namespace| NamespaceReading {
                    namespace,
                    counters,
                    conntrack_full,
                    counted_only: false,
                })
                .into(),
            drops: drops.to_vec(),
            ..Reading::default()
        };
        for grown in self.networks.book(&reading, |key| Some(key.id as usize)) {
            grown.add_to(self.of[grown.owner].get_or_insert_default());
        }
    }

    fn network(&self, id: usize) -> NetworkCounters {
        self.of[id].unwrap_or_default()
    }
}

fn dropped(namespace: u64, out: bool, packets: u64) -> DropReading {
    DropReading {
        namespace,
        out,
        uncounted: false,
        other: None,
        cgroup: None,
        reason: NETFILTER,
        untracked: false,
        a_loss: true,
        packets,
    }
}

#[test]
fn a_namespace_of_one_pod_is_the_pods() {
    let mut node = Node::new();
    node.read(&[dropped(101, true, 5)], 100);
    node.read(&[dropped(101, true, 8), dropped(101, false, 2)], 200);
    let network = node.network(1);
    let packets = network.packets.expect("its own namespace");
    assert_eq!((packets.packets, packets.dropped_out, packets.dropped_in), (200, 8, 2));
    let all: Vec<_> = network.drops.iter().map(|d| (d.reason, d.out, d.packets)).collect();
    assert_eq!(all, [(NETFILTER, true, 8), (NETFILTER, false, 2)]);
    assert_eq!(node.network(2).packets.map(|p| p.dropped_out + p.dropped_in), Some(0));
}

#[test]
fn what_is_dropped_on_its_way_through_the_host_is_the_pods_at_the_other_end() {
    let mut node = Node::new();
    let through =
        |other, out, packets| DropReading { other: Some((other, out)), ..dropped(100, false, packets) };
    node.read(&[through(101, true, 10), through(102, false, 4)], 100);
    let (one, two) = (node.network(1).packets.expect("one"), node.network(2).packets.expect("two"));
    assert_eq!((one.packets, one.dropped_out), (100, 10));
    // What never reached it is not among what it received.
    assert_eq!((two.packets, two.dropped_in), (104, 4));
}

#[test]
fn on_the_hosts_network_the_socket_says_whose_it_is() {
    let mut node = Node::new();
    let of = |id, packets| DropReading { cgroup: Some(cgroup(id)), ..dropped(100, true, packets) };
    node.read(&[of(4, 3), dropped(100, true, 50)], 100);
    assert_eq!(node.network(4).drops.iter().map(|d| d.packets).sum::<u64>(), 3);
    assert_eq!(node.network(4).packets, None, "nobody counts what it sends");
    for other in [3, 5] {
        assert_eq!(node.of[other], None);
    }
}

#[test]
fn what_was_dropped_before_its_owner_was_found_is_booked_then() {
    let mut node = Node::new();
    node.networks.owners.clear();
    let reading = Reading { drops: vec![dropped(101, true, 7)], ..Reading::default() };
    assert_eq!(node.networks.book(&reading, |_| None), []);
    node.read(&[dropped(101, true, 9)], 10);
    assert_eq!(node.network(1).packets.map(|p| p.dropped_out), Some(9));
}

/// A rule's and conntrack's are one to the kernel: so many as conntrack counts are its own, of those that it did not have.
#[test]
fn what_conntrack_had_no_room_for_is_told_apart() {
    let mut node = Node::new();
    let tracked = dropped(101, true, 40);
    let of = |packets| DropReading { untracked: true, ..dropped(101, true, packets) };
    node.read_with(&[tracked, of(30)], 100, 25);
    let by_reason =
        |node: &Node| -> Vec<_> { node.network(1).drops.iter().map(|d| (d.reason, d.packets)).collect() };
    assert_eq!(by_reason(&node), [(NETFILTER, 45), (DropReason::CONNTRACK_DROP, 25)]);
    // Its counter may be ahead of the packets by a reading.
    node.read_with(&[tracked, of(30)], 100, 28);
    node.read_with(&[tracked, of(33)], 100, 28);
    assert_eq!(by_reason(&node), [(NETFILTER, 45), (DropReason::CONNTRACK_DROP, 28)]);
    assert_eq!(node.network(1).packets.map(|p| p.dropped_out), Some(73));
}

/// A connection that a listening socket refused is one that was dropped, by the counter that it is in.
#[test]
fn refused_connections_are_dropped_ones() {
    let mut node = Node::new();
    let mut read = |times: u64, counted_only| {
        let counters = PacketCounters {
            packets: 50 * times,
            listen_overflows: 7 * times,
            listen_refusals: 2 * times,
            buffer_overflows: 4 * times,
            ..PacketCounters::default()
        };
        let reading = Reading {
            namespaces: vec![NamespaceReading { namespace: 101, counters, conntrack_full: 0, counted_only }],
            ..Reading::default()
        };
        for grown in node.networks.book(&reading, |key| Some(key.id as usize)) {
            grown.add_to(node.of[grown.owner].get_or_insert_default());
        }
        let network = node.network(1);
        let all: Vec<_> = network.drops.iter().map(|d| (d.reason.name(), d.out, d.packets)).collect();
        (network.packets.map(|p| p.dropped_in), all)
    };
    assert_eq!(read(1, false), (Some(9), vec![("LISTEN_OVERFLOW", false, 7), ("LISTEN_DROP", false, 2)]));
    // A full buffer is told of packet by packet where any is.
    let all = vec![("LISTEN_OVERFLOW", false, 14), ("LISTEN_DROP", false, 4), ("SOCKET_RCVBUFF", false, 4)];
    assert_eq!(read(2, true), (Some(22), all));
}

/// What interfaces say is known whatever was dropped, and stays unknown whatever was.
#[test]
fn a_drop_says_nothing_of_interfaces() {
    for by_interfaces in [Some(3), None] {
        let mut node = Node::new();
        let mut read = |times: u64| {
            let counters = PacketCounters {
                packets: 50 * times,
                interface_dropped: by_interfaces.map(|n| n * times),
                ..PacketCounters::default()
            };
            let space = NamespaceReading { namespace: 101, counters, conntrack_full: 0, counted_only: false };
            let reading = Reading {
                namespaces: vec![space],
                drops: vec![dropped(101, true, 9 * times)],
                ..Reading::default()
            };
            for grown in node.networks.book(&reading, |key| Some(key.id as usize)) {
                grown.add_to(node.of[grown.owner].get_or_insert_default());
            }
            node.network(1).packets.map(|p| (p.dropped_out, p.interface_dropped))
        };
        read(1);
        assert_eq!(read(2), Some((18, by_interfaces)));
    }
}
