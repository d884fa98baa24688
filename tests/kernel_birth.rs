//! The birth recorder against the kernel that runs the test: strace, /proc and known workloads are the oracle.

mod common;

use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use common::births::{ended, options, record, segments};
use kernel_gossip::kernel::birth::{Begun, End, Entry, Segment};

/// One recording at a time: the others' processes would fill the room.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|failed| failed.into_inner())
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
        let (records, ()) = record(
            options(entry),
            || {
                let status = Command::new("/bin/sh")
                    .args(["-c", &script, "zero", ""])
                    .env("CNI_CONTAINERID", &mark)
                    .env("KG_SECRET", "not to be kept")
                    .status();
                assert_eq!(status.expect("sh").code(), Some(7));
            },
            |records, ()| segments(records).find(|s| is(s)).is_some_and(|s| ended(records, s).is_some()),
        );
        let segment = segments(&records).find(|s| is(s)).expect("waited for");
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
