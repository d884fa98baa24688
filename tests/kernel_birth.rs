//! The birth recorder against the kernel that runs the test: strace, /proc and known workloads are the oracle.

mod common;

use std::mem::MaybeUninit;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use common::cgroup::{Version, cpu_tree};
use common::until;
use kernel_gossip::kernel::Hierarchy;
use kernel_gossip::kernel::birth::{Begun, End, Ended, Entry, Record, Recorder, RecorderOptions, Segment};

/// One recording at a time: the others' processes would fill the room.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

fn hierarchy() -> Hierarchy {
    match cpu_tree().version {
        Version::V1 => Hierarchy::V1Cpu,
        Version::V2 => Hierarchy::Unified,
    }
}

fn options(entry: Entry) -> RecorderOptions {
    RecorderOptions::new(entry, hierarchy())
}

/// Records what `work` does, until the last of its processes that `done` waits for is over.
fn record(options: RecorderOptions, work: impl FnOnce(), done: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    let mut storage = MaybeUninit::uninit();
    let mut recorder = Recorder::load(&mut storage, options).expect("load the recorder");
    let mut records = Vec::new();
    recorder.start().expect("start");
    work();
    until("the end of the work", || {
        recorder.drain(&mut records);
        done(&records).then_some(())
    });
    recorder.stop(&mut records);
    assert!(recorder.losses().none(), "{:?}", recorder.losses());
    records
}

fn began(records: &[Record], is: impl Fn(&Segment) -> bool) -> Option<&Segment> {
    records.iter().find_map(|record| match record {
        Record::Began(segment) if is(segment) => Some(segment),
        _ => None,
    })
}

fn ended<'r>(records: &'r [Record], segment: &Segment) -> Option<&'r Ended> {
    records.iter().find_map(|record| match record {
        Record::Ended(ended) if ended.segment == segment.id => Some(ended),
        _ => None,
    })
}

#[test]
fn a_short_process_is_told_whole() {
    let _alone = alone();
    for entry in [Entry::TpBtf, Entry::RawTracepoint, Entry::Bare] {
        let mark = format!("kg-{entry:?}-{}", std::process::id());
        let script = format!("exit 7 # {mark}");
        let is = |segment: &Segment| {
            segment.begun == Begun::Exec && segment.parent_tgid == std::process::id() && segment.comm == "sh"
        };
        let records = record(
            options(entry),
            || {
                let status = Command::new("/bin/sh")
                    .args(["-c", &script, "zero", ""])
                    .env("CNI_CONTAINERID", &mark)
                    .env("KG_SECRET", "not to be kept")
                    .status();
                assert_eq!(status.expect("sh").code(), Some(7));
            },
            |records| began(records, is).is_some_and(|segment| ended(records, segment).is_some()),
        );
        let segment = began(&records, is).expect("waited for");
        let end = ended(&records, segment).expect("waited for");
        println!("{segment:?}\n{end:?}");
        assert_eq!(end.how, End::Exit(7));
        if entry != Entry::Bare {
            assert_eq!(segment.args, ["/bin/sh", "-c", &script, "zero", ""]);
            assert_eq!(segment.exe.as_deref(), Some("/bin/sh"));
            assert_eq!(segment.env.iter().collect::<Vec<_>>(), [(&"CNI_CONTAINERID".into(), &mark)]);
        }
    }
}
