//! Packets of network namespaces made into packets of workloads. A namespace that one pod, or one workload, has to itself is
//! theirs; one that several share (the host's) is nobody's, and there the socket's cgroup alone says whose a packet is.

use foldhash::HashMap;

use super::tree::NodeId;
use crate::kernel::{CgroupKey, Counter, DropReading, DropReason, NetworkCounters, PacketCounters, Reading};

/// Namespaces, and kinds of drops in them, kept at a time: no more than the probe tells of (1,024 and 8,192).
const MAX: usize = 16_384;
/// Readings after which what is not told of any more is forgotten.
const FORGET_AFTER: u64 = 3;

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    One(NodeId),
    /// Several: the host's.
    Shared,
}

/// What tells the drops of one kind from others: the namespace, its direction, the other and its direction, the socket's
/// cgroup, the reason, whether conntrack had it.
type Place = (u64, bool, Option<(u64, bool)>, Option<CgroupKey>, DropReason, bool);

/// What conntrack dropped in a namespace: to the kernel netfilter's doing, as a rule's drops are.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    last: u64,
    /// Not given to anybody's drops so far.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Booked {
    packets: u64,
    /// The last reading that told of it.
    reading: u64,
}

/// What a workload is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    pub owner: NodeId,
    /// Of its own namespace; `None`: it has none.
    packets: Option<PacketCounters>,
    dropped: Option<(DropReason, bool, u64)>,
}

impl Grown {
    /// Adds it to what the owner has.
    pub fn add_to(&self, network: &mut NetworkCounters) {
        if let Some(packets) = &self.packets {
            let known = network.packets.get_or_insert_default();
            let by_interfaces = known.interface_dropped;
            known.add(packets);
            // That a packet was dropped says nothing of interfaces.
            if self.dropped.is_some() {
                known.interface_dropped = by_interfaces;
            }
        }
        if let Some((reason, out, packets)) = self.dropped {
            network.drops.count(reason, out, packets);
        }
    }
}

/// The namespaces of a node.
#[derive(Debug, Default)]
pub struct Networks {
    /// Who is in which, at the last walk.
    owners: HashMap<u64, Owner>,
    /// What was given to owners so far.
    packets: HashMap<u64, PacketCounters>,
    drops: HashMap<Place, Booked>,
    /// By the namespace in which conntrack dropped them.
    refused: HashMap<u64, Refused>,
    reading: u64,
    grown: Vec<Grown>,
}

impl Networks {
    /// Takes a reading; what it adds to whom. `owner`: whose a cgroup is, a pod rather than its container.
    pub fn book(&mut self, reading: &Reading, owner: impl Fn(CgroupKey) -> Option<NodeId>) -> &[Grown] {
        self.reading += 1;
        self.grown.clear();
        self.learn(reading, &owner);
        for space in &reading.namespaces {
            self.refuse(space.namespace, space.conntrack_full);
            let Some(Owner::One(owner)) = self.owners.get(&space.namespace).copied() else { continue };
            if self.packets.len() >= MAX && !self.packets.contains_key(&space.namespace) {
                continue;
            }
            // What it counted before it was found is of no moment that is known: it begins now.
            let last = self.packets.entry(space.namespace).or_insert(space.counters);
            let mut grown = space.counters.growth(last);
            *last = space.counters;
            let refused = [
                (DropReason::LISTEN_OVERFLOW, grown.listen_overflows),
                (DropReason::LISTEN_REFUSAL, grown.listen_refusals),
                // Where packets are told of, each of these is.
                (DropReason::BUFFER_OVERFLOW, if space.counted_only { grown.buffer_overflows } else { 0 }),
            ];
            grown.dropped_in += refused.iter().map(|(_, packets)| packets).sum::<u64>();
            self.grown.push(Grown { owner, packets: Some(grown), dropped: None });
            let refused = refused.into_iter().filter(|(_, connections)| *connections > 0);
            self.grown.extend(refused.map(|(reason, connections)| Grown {
                owner,
                packets: None,
                dropped: Some((reason, false, connections)),
            }));
        }
        for drop in &reading.drops {
            self.drop(drop, &owner);
        }
        let now = self.reading;
        self.drops.retain(|_, booked| now - booked.reading < FORGET_AFTER);
        &self.grown
    }

    /// Who is in which namespace, where the cgroups were walked.
    fn learn(&mut self, reading: &Reading, owner: &impl Fn(CgroupKey) -> Option<NodeId>) {
        if reading.members.is_empty() {
            return;
        }
        self.owners.clear();
        for (space, cgroup) in &reading.members {
            let Some(owner) = owner(*cgroup) else { continue };
            let known = self.owners.entry(*space).or_insert(Owner::One(owner));
            if *known != Owner::One(owner) {
                *known = Owner::Shared;
            }
        }
        let owners = &self.owners;
        self.packets.retain(|space, _| owners.contains_key(space));
        self.refused.retain(|space, _| owners.contains_key(space));
    }

    fn drop(&mut self, drop: &DropReading, owner: &impl Fn(CgroupKey) -> Option<NodeId>) {
        let place = (drop.namespace, drop.out, drop.other, drop.cgroup, drop.reason, drop.untracked);
        if self.drops.len() >= MAX && !self.drops.contains_key(&place) {
            return;
        }
        let whose = self.owner(drop, owner);
        let booked = self.drops.entry(place).or_default();
        booked.reading = self.reading;
        // What nobody is known to own waits: it is given to its owner once they are found.
        let Some(whose) = whose else { return };
        let grown = drop.packets.saturating_sub(booked.packets);
        booked.packets = drop.packets;
        if grown == 0 {
            return;
        }
        let mut packets = PacketCounters::default();
        if drop.a_loss {
            *(if whose.out { &mut packets.dropped_out } else { &mut packets.dropped_in }) = grown;
        }
        if whose.uncounted {
            packets.packets = grown;
        }
        let packets = whose.counted.then_some(packets);
        let refused = self.refused.get_mut(&drop.namespace).filter(|_| drop.untracked);
        let by_conntrack = refused.map_or(0, |refused| {
            let these = refused.left.min(grown);
            refused.left -= these;
            these
        });
        let of = |reason, packets, dropped| Grown {
            owner: whose.owner,
            packets,
            dropped: Some((reason, whose.out, dropped)),
        };
        if by_conntrack > 0 {
            self.grown.push(of(DropReason::CONNTRACK_DROP, None, by_conntrack));
        }
        self.grown.push(of(drop.reason, packets, grown - by_conntrack));
    }

    /// Conntrack dropped so many in a namespace by now.
    fn refuse(&mut self, namespace: u64, now: u64) {
        if self.refused.len() >= MAX && !self.refused.contains_key(&namespace) {
            return;
        }
        let refused = self.refused.entry(namespace).or_insert(Refused { last: now, left: 0 });
        refused.left += now.saturating_sub(refused.last);
        refused.last = now;
    }

    fn owner(&self, drop: &DropReading, owner: &impl Fn(CgroupKey) -> Option<NodeId>) -> Option<Whose> {
        match (self.owners.get(&drop.namespace), drop.other) {
            (Some(Owner::One(owner)), _) => {
                Some(Whose { owner: *owner, out: drop.out, counted: true, uncounted: drop.uncounted })
            }
            // On its way through the host: what was for the other end had not been counted there.
            (_, Some((other, out))) => match self.owners.get(&other) {
                Some(Owner::One(owner)) => Some(Whose { owner: *owner, out, counted: true, uncounted: !out }),
                _ => None,
            },
            (Some(Owner::Shared), None) => {
                let owner = owner(drop.cgroup?)?;
                Some(Whose { owner, out: drop.out, counted: false, uncounted: false })
            }
            (None, None) => None,
        }
    }
}

/// Whose a dropped packet was.
struct Whose {
    owner: NodeId,
    /// They sent it.
    out: bool,
    /// They have a namespace of their own, which counts their packets.
    counted: bool,
    /// This one it did not count.
    uncounted: bool,
}

#[cfg(test)]
mod tests;
