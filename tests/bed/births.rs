//! Recording births in tests.

use std::mem::MaybeUninit;

use kernel_gossip::kernel::Hierarchy;
use kernel_gossip::kernel::recorder::{Ended, Entry, Record, Recorder, RecorderOptions, Segment};

use super::cgroup::{Version, cpu_tree};
use super::until;

pub fn options(entry: Entry) -> RecorderOptions {
    let hierarchy = match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    };
    RecorderOptions::new(entry, hierarchy)
}

/// Records what `work` does, and on until `done` says that all of it was told. Nothing may be lost.
pub fn record<T>(
    options: RecorderOptions,
    work: impl FnOnce() -> T,
    done: impl Fn(&[Record], &T) -> bool,
) -> (Vec<Record>, T) {
    let mut storage = MaybeUninit::uninit();
    let mut recorder = Recorder::load(&mut storage, options).expect("load the recorder");
    let mut records = Vec::new();
    recorder.start().expect("start");
    let result = work();
    until("the end of the work", || {
        recorder.drain(&mut records);
        done(&records, &result).then_some(())
    });
    recorder.stop(&mut records);
    assert!(recorder.losses().none(), "{:?}", recorder.losses());
    (records, result)
}

/// All segments that began, in their order.
pub fn segments(records: &[Record]) -> impl Iterator<Item = &Segment> {
    records.iter().filter_map(|record| match record {
        Record::Began(segment) => Some(segment),
        _ => None,
    })
}

pub fn ended<'r>(records: &'r [Record], segment: &Segment) -> Option<&'r Ended> {
    records.iter().find_map(|record| match record {
        Record::Ended(ended) if ended.segment == segment.id => Some(ended),
        _ => None,
    })
}

/// The segments of a process and of all that it forked, and these forked.
pub fn family(records: &[Record], tgid: u32) -> Vec<&Segment> {
    let mut family: Vec<&Segment> = Vec::new();
    for segment in segments(records) {
        let is = match segment.parent {
            Some(parent) => family.iter().any(|member| member.id == parent),
            None => segment.tgid == tgid,
        };
        if is {
            family.push(segment);
        }
    }
    family
}
