//! Records as a recorder would tell them, for the tests of this room.

use std::collections::BTreeMap;

use crate::kernel::Hierarchy;
use crate::kernel::recorder::*;

/// A program that a process of its own runs.
pub fn exec(id: u64, parent: Option<u64>, command: &str) -> Segment {
    let args: Vec<String> = command.split(' ').map(String::from).collect();
    let base = args[0].rsplit('/').next().unwrap().to_owned();
    Segment {
        id: SegmentId(id),
        parent: parent.map(SegmentId),
        begun: Begun::Exec,
        start_ns: id * 1_000_000,
        tgid: u32::try_from(id).unwrap(),
        parent_tgid: 1,
        comm: base.chars().take(15).collect(),
        exe: Some(args[0].clone()),
        file: Some(base),
        args,
        args_cut: false,
        env: BTreeMap::new(),
        env_cut: false,
        uid: Some(0),
        place: place(1),
    }
}

/// In the cgroup of this id; 1 is the root.
pub fn place(cgroup: u64) -> Place {
    Place { cgroup: Some(cgroup), hierarchy: Some(Hierarchy::Unified), ..Place::default() }
}

pub fn fork(id: u64, parent: Option<u64>) -> Segment {
    Segment {
        begun: Begun::Fork,
        exe: None,
        file: None,
        args: Vec::new(),
        uid: None,
        ..exec(id, parent, "x")
    }
}

pub fn ended(id: u64, tgid: u32, at_ns: u64, how: End) -> Ended {
    let (place, counters) = (place(1), Counters::default());
    Ended { segment: SegmentId(id), tgid, at_ns, how, place, counters }
}

pub fn cgroup(hierarchy_id: u32, cgroup: u64, path: &str, at_ns: u64) -> Record {
    let by = By { at_ns, segment: None, tgid: 1, comm: "kubelet".into() };
    Record::CgroupMade(CgroupMade { by, hierarchy_id, cgroup, path: path.into(), owner: Some(0) })
}
