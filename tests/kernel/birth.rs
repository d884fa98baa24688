//! The birth recorder against the kernel that runs the test: strace, /proc and known workloads are the oracle.

use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use crate::bed::births::{ended, options, record, segments};
use crate::bed::cgroup::Cgroup;
use crate::bed::stats::StatsEnabled;
use crate::bed::{emulated, until};
use kernel_gossip::kernel::CgroupChange;
use kernel_gossip::kernel::driver::{Driver, DriverOptions, Storage};
use kernel_gossip::kernel::facts::{Facts, FactsOptions};
use kernel_gossip::kernel::plan::plan;
use kernel_gossip::kernel::recorder::{
    Begun, BirthLosses, End, Entry, Family, Record, Recorder, RecorderOptions, Segment,
};

/// One recording at a time: the others' processes would fill the room.
pub fn alone() -> MutexGuard<'static, ()> {
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

/// Runs a shell script to its end.
fn shell(script: &str) {
    assert!(Command::new("/bin/sh").args(["-c", script]).status().expect("sh").success());
}

#[test]
fn a_signal_and_a_fork_are_told() {
    let _alone = alone();
    let is = |segment: &Segment| segment.args.first().is_some_and(|arg| arg == "kg-killed");
    let (records, ()) = record(
        options(Entry::TpBtf),
        || {
            let mut child = Command::new("/bin/sh");
            let status = child.arg0("kg-killed").args(["-c", "/bin/true; /bin/true; kill -KILL $$"]).status();
            assert_eq!(status.expect("sh").signal(), Some(libc::SIGKILL));
        },
        |records, ()| segments(records).find(|s| is(s)).is_some_and(|s| ended(records, s).is_some()),
    );
    let segment = segments(&records).find(|s| is(s)).expect("waited for");
    let end = ended(&records, segment).expect("waited for");
    assert_eq!(end.how, End::Signal(libc::SIGKILL as u8));
    assert_eq!(end.counters.forks, 2);
    let children: Vec<_> = segments(&records).filter(|s| s.parent == Some(segment.id)).collect();
    assert!(children.iter().all(|s| s.begun == Begun::Fork && s.parent_tgid == segment.tgid));
    for child in &children {
        let end = ended(&records, child).expect("before its parent's end");
        assert_eq!(end.how, End::Exec, "{child:?}");
        let program = segments(&records).find(|s| s.parent == Some(child.id)).expect("what it execs");
        assert_eq!((program.tgid, program.file.as_deref()), (child.tgid, Some("true")));
    }
    assert_eq!(children.len(), 2);
}

#[test]
fn listening_sockets_are_told_with_their_port() {
    let _alone = alone();
    for entry in [Entry::TpBtf, Entry::RawTracepoint, Entry::Bare] {
        let (records, ports) = record(
            options(entry),
            || {
                let four = TcpListener::bind("127.0.0.1:0").expect("bind");
                let six = TcpListener::bind("[::1]:0").ok(); // a guest may have none
                let port = |listener: &TcpListener| listener.local_addr().expect("its address").port();
                (port(&four), six.as_ref().map(port))
            },
            |_, _| true,
        );
        let own = |record: &Record| match record {
            Record::Listen(l) if l.by.tgid == std::process::id() => Some((l.family, l.port)),
            _ => None,
        };
        let told: Vec<_> = records.iter().filter_map(own).collect();
        let expected = [(Family::Ipv4, Some(ports.0)), (Family::Ipv6, ports.1)];
        let expected: Vec<_> =
            expected.into_iter().filter_map(|(family, port)| Some((family, port?))).collect();
        assert_eq!(told, expected, "{entry:?}");
    }
}

/// What began, and what was lost instead.
fn accounted(records: &[Record], lost: BirthLosses) -> u64 {
    segments(records).count() as u64 + lost.segments + lost.events
}

#[test]
fn a_burst_loses_nothing_silently() {
    let _alone = alone();
    // An emulated CPU takes a quarter of a second for each.
    let (processes, ring) = if emulated() { (40, 32 << 10) } else { (1000, 128 << 10) };
    let burst = move || shell(&format!("i=0; while [ $i -lt {processes} ]; do /bin/true; i=$((i+1)); done"));
    let all_end = |records: &[Record]| segments(records).all(|segment| ended(records, segment).is_some());

    // Read in time, nothing is lost: there are more segments than slots.
    let mut storage = MaybeUninit::uninit();
    let small = RecorderOptions { max_segments: 64, ..options(Entry::TpBtf) };
    let mut recorder = Recorder::load(&mut storage, small).expect("load");
    let mut records = Vec::new();
    recorder.start().expect("start");
    let work = std::thread::spawn(burst);
    while !work.is_finished() {
        recorder.drain(&mut records);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    work.join().expect("the burst");
    recorder.stop(&mut records);
    let lost = recorder.losses();
    println!("read in time: {} segments, {lost:?}", segments(&records).count());
    assert!(accounted(&records, lost) >= 2 * processes);
    assert!(all_end(&records));

    // Not read at all, slots run out; and are there again afterwards.
    let before = recorder.losses();
    records.clear();
    recorder.start().expect("start");
    burst();
    recorder.stop(&mut records);
    let lost = recorder.losses();
    println!("64 slots, not read: {} segments, {lost:?}", segments(&records).count());
    assert!(lost.segments - before.segments >= 2 * processes - 64);
    assert!(accounted(&records, lost) - before.segments - before.events >= 2 * processes);
    assert!(all_end(&records));
    drop(recorder);

    // Not read at all, the ring buffer runs over: those that ended unseen are found.
    let mut storage = MaybeUninit::uninit();
    let small = RecorderOptions { ring_bytes: ring, ..options(Entry::TpBtf) };
    let mut recorder = Recorder::load(&mut storage, small).expect("load");
    for _ in 0..2 {
        let before = recorder.losses();
        records.clear();
        recorder.start().expect("start");
        burst();
        recorder.stop(&mut records);
        let lost = recorder.losses();
        println!("{ring} bytes, not read: {} segments, {lost:?}", segments(&records).count());
        assert!(lost.events > before.events);
        assert!(accounted(&records, lost) - before.segments - before.events >= 2 * processes);
        assert!(all_end(&records));
        // Every slot of the round before could be used.
        assert!(segments(&records).count() as u64 + lost.events - before.events >= 2 * processes);
    }
}

/// The links that this process holds, by the kind in /proc/self/fdinfo.
fn links() -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").expect("fdinfo");
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    texts
        .filter(|text| text.lines().any(|line| line.starts_with("link_type:") && !line.contains("iter")))
        .count()
}

#[test]
fn nothing_is_attached_between_recordings() {
    let _alone = alone();
    let _stats = StatsEnabled::new();
    for entry in [Entry::TpBtf, Entry::RawTracepoint, Entry::Bare] {
        let mut storage = MaybeUninit::uninit();
        let mut recorder = Recorder::load(&mut storage, options(entry)).expect("load");
        let runs = |recorder: &Recorder<'_>| {
            let mut costs = Vec::new();
            recorder.costs(&mut costs);
            assert_eq!(costs.len(), 6);
            costs.iter().map(|cost| cost.runs).sum::<u64>()
        };
        shell("/bin/true");
        assert_eq!((runs(&recorder), links()), (0, 0));
        recorder.start().expect("start");
        shell("/bin/true");
        assert_eq!(links(), 6);
        recorder.stop(&mut Vec::new());
        let after = runs(&recorder);
        assert!(after > 0);
        shell("/bin/true");
        assert_eq!((runs(&recorder), links()), (after, 0), "{entry:?}");
    }
}

/// By the driver, as the agent does: a cgroup that is made wakes it, recording or not, and says who made it.
#[test]
fn a_cgroup_that_is_made_is_told_at_once() {
    let _alone = alone();
    let facts =
        tokio::runtime::Runtime::new().expect("a runtime").block_on(Facts::gather(&FactsOptions::default()));
    let plan = plan(&facts);
    assert!(plan.births.hook().is_some_and(|hook| hook.triggered), "{:?}", plan.births);
    let options = DriverOptions { cpu: None, oom: None, ..DriverOptions::of(&facts, &plan, 1024) };
    let mut storage = Storage::default();
    let mut driver = Driver::start(&mut storage, options);
    let mut records = Vec::new();
    driver.read();
    driver.read_births(&mut records);
    let mut fds: Vec<_> =
        driver.fds().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    assert_eq!(fds.len(), 2);

    for recording in [false, true] {
        if recording {
            driver.recorder().expect("births").start().expect("start");
        }
        records.clear();
        let parent = Cgroup::new("birth");
        let mut mkdir = Command::new("mkdir").arg(parent.dir().join("child")).spawn().expect("mkdir");
        let mut made = |driver: &mut Driver<'_>| {
            // SAFETY: as many pollfds as are told.
            assert!(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 60_000) } > 0);
            driver.read_births(&mut records);
            records.iter().find_map(|record| match record {
                Record::CgroupMade(made) if made.path == format!("{}/child", parent.path()) => {
                    Some(made.clone())
                }
                _ => None,
            })
        };
        let told = until("the cgroup", || made(&mut driver));
        assert_eq!((told.by.tgid, told.by.comm.as_str()), (mkdir.id(), "mkdir"));
        assert_eq!(told.by.segment.is_some(), recording);
        if let Some(segment) = told.by.segment {
            let by = segments(&records).find(|s| s.id == segment).expect("begun before");
            assert_eq!((by.file.as_deref(), by.begun), (Some("mkdir"), Begun::Exec));
            assert!(records.is_sorted_by_key(Record::at_ns));
        }
        mkdir.wait().expect("its end");
        std::fs::remove_dir(parent.dir().join("child")).expect("the child");
        // What the sampler would have learned of it is not lost by being asked early.
        let paths = |driver: &mut Driver<'_>| {
            let changes = driver.read().changes.clone();
            changes
                .into_iter()
                .find(|c| matches!(c, CgroupChange::Present { path, .. } if *path == told.path))
        };
        assert!(paths(&mut driver).is_some(), "{}", told.path);
    }
    driver.recorder().expect("births").stop(&mut records);
}

/// A recorder that does not load takes the numbers away, not the births.
#[test]
fn cgroups_are_told_of_without_a_recorder() {
    let _alone = alone();
    let facts =
        tokio::runtime::Runtime::new().expect("a runtime").block_on(Facts::gather(&FactsOptions::default()));
    let of_plan = DriverOptions::of(&facts, &plan(&facts), 1024);
    let no_room = of_plan.births.clone().map(|births| RecorderOptions { ring_bytes: 0, ..births });
    let options = DriverOptions { cpu: None, oom: None, births: no_room, ..of_plan };
    let mut storage = Storage::default();
    let mut driver = Driver::start(&mut storage, options);
    assert!(driver.recorder().is_none() && driver.fds().count() == 1);
    driver.read();
    let parent = Cgroup::new("birth");
    let path = parent.path();
    until("the cgroup", || {
        let mut records = Vec::new();
        driver.read_births(&mut records);
        records.iter().any(|r| matches!(r, Record::CgroupMade(made) if made.path == path)).then_some(())
    });
}

/// What changes netfilter's rules is told from what asks for them, by netlink and by the old socket option.
#[test]
#[ignore = "needs iptables, and a kernel with its modules"]
fn netfilter_changes_are_told_from_questions() {
    let _alone = alone();
    const SCRIPT: &str = "iptables-nft -A INPUT -j ACCEPT && iptables-nft -S && iptables-nft -D INPUT 1 && \
        iptables-legacy -A INPUT -j ACCEPT -w 60 && iptables-legacy -S -w 60";
    for entry in [Entry::TpBtf, Entry::RawTracepoint] {
        let (records, ()) = record(
            options(entry),
            || {
                let mut apart = Command::new("unshare"); // in a network namespace of its own
                let status = apart.args(["--net", "sh", "-c", SCRIPT]).stdout(Stdio::null()).status();
                assert!(status.expect("unshare").success());
            },
            |records, ()| {
                let own =
                    segments(records).filter(|s| s.args.first().is_some_and(|a| a.starts_with("iptables-")));
                let ends: Vec<_> = own.map(|s| ended(records, s)).collect();
                ends.len() == 5 && ends.iter().all(Option::is_some)
            },
        );
        let mut told = Vec::new();
        for segment in segments(&records) {
            if let [program, option, ..] = segment.args.as_slice()
                && program.starts_with("iptables-")
            {
                let changes = ended(&records, segment).expect("waited for").counters.netfilter_changes;
                told.push((format!("{program} {option}"), changes));
            }
        }
        let expected = [
            ("iptables-nft -A", 1),
            ("iptables-nft -S", 0),
            ("iptables-nft -D", 1),
            ("iptables-legacy -A", 1),
            ("iptables-legacy -S", 0),
        ];
        assert_eq!(told, expected.map(|(call, changes)| (call.to_owned(), changes)), "{entry:?}");
    }
}
