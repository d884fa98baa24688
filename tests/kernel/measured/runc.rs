//! The birth recorder against a real container start by runc: strace of the same run, and what the container sees of
//! itself, are the oracle.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::process::Command;

use crate::bed::births::{ended, family, options, record, segments};
use crate::bed::bundle::Bundle;
use crate::bed::strace::{self, Calls, Strace, sum};
use kernel_gossip::kernel::recorder::{Begun, Entry, Record, Segment};

#[test]
#[ignore = "needs runc, busybox and strace"]
fn system_calls_and_cgroup_writes_equal_what_strace_saw() {
    let bundle = Bundle::new(&["true"]);
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("strace");
    let script = bundle.start();
    let (records, tracer) = record(
        options(Entry::TpBtf),
        || {
            let mut strace = strace::to(&out).args(["sh", "-c", &script]).spawn().expect("strace");
            assert!(strace.wait().expect("its end").success());
            strace.id()
        },
        |records, tracer| {
            let family = family(records, *tracer);
            !family.is_empty() && family.iter().all(|segment| ended(records, segment).is_some())
        },
    );
    let strace = Strace::read(&fs::read_to_string(&out).expect("strace's output"));
    let family = family(&records, tracer);

    // Our counts of each process that strace traced; of the first, from its exec on, which strace shows as well.
    let mut ours: BTreeMap<u32, (String, Calls)> = BTreeMap::new();
    for segment in family.iter().filter(|segment| segment.tgid != tracer) {
        let traced_from_exec = segment.parent_tgid == tracer && segment.begun == Begun::Fork;
        let counters = &ended(&records, segment).expect("waited for").counters;
        let (name, counts) = ours.entry(segment.tgid).or_default();
        if segment.begun == Begun::Exec {
            *name = segment.args.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
        }
        if !strace.calls.contains_key(&segment.tgid) {
            continue; // strace looks at what the kernel can do, in children of its own
        }
        if traced_from_exec {
            *counts.entry(59).or_default() += u64::from(cfg!(target_arch = "x86_64"));
            continue;
        }
        for (number, count) in &counters.syscalls {
            *counts.entry(*number).or_default() += count;
        }
        assert_eq!(counters.foreign_syscalls, 0);
    }
    ours.retain(|tgid, _| strace.calls.contains_key(tgid));
    assert_eq!(ours.len(), strace.calls.len(), "the same processes");
    let (mut all_ours, mut all_theirs) = (0, 0);
    println!("| process | recorder | strace | calls that differ |\n|---|---|---|---|");
    for (tgid, (name, counts)) in &ours {
        let theirs = &strace.of(*tgid);
        let differ: BTreeMap<u32, (u64, u64)> = counts
            .keys()
            .chain(theirs.keys())
            .map(|n| (*n, (counts.get(n).copied().unwrap_or(0), theirs.get(n).copied().unwrap_or(0))))
            .filter(|(_, (a, b))| a != b)
            .collect();
        println!("| {name} | {} | {} | {differ:?} |", sum(counts), sum(theirs));
        let off = sum(counts).abs_diff(sum(theirs));
        // A thread that is killed on its way into a call is seen by one and not the other.
        assert!(off <= 1 + sum(theirs) / 100, "{name}: {counts:?} is not {theirs:?}");
        all_ours += sum(counts);
        all_theirs += sum(theirs);
    }
    println!("| all | {all_ours} | {all_theirs} | |");
    assert!(all_ours.abs_diff(all_theirs) * 100 <= all_theirs, "{all_ours} is not {all_theirs}");

    // Writes to files of cgroups, by the file's name and the number of cgroups.
    let mut by_file: BTreeMap<&str, u64> = BTreeMap::new();
    let ids: Vec<_> = family.iter().map(|segment| segment.id).collect();
    for record in &records {
        if let Record::CgroupWrite(write) = record
            && write.by.segment.is_some_and(|id| ids.contains(&id))
        {
            *by_file.entry(write.file.as_str()).or_default() += 1;
        }
    }
    println!("cgroup writes by file: {by_file:?}");
    assert_eq!(by_file, strace.written(""), "{:?}", strace.cgroup_writes);
    assert!(!by_file.is_empty());
}

#[test]
#[ignore = "needs runc and busybox"]
fn namespaces_and_mounts_equal_what_the_container_sees() {
    const SCRIPT: &str = "for ns in mnt uts ipc pid pid_for_children net cgroup time user; do \
        echo $ns $(/bin/busybox readlink /proc/self/ns/$ns); done; \
        echo mounts $(/bin/busybox wc -l </proc/1/mountinfo)";
    for entry in [Entry::TpBtf, Entry::RawTracepoint] {
        let bundle = Bundle::new(&["sh", "-c", SCRIPT]);
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("out");
        let own = |segment: &Segment| {
            segment.begun == Begun::Exec
                && segment.args.first().is_some_and(|arg| arg == "/bin/busybox")
                && segment.args.get(1).is_some_and(|arg| arg == "sh")
        };
        let (records, ()) = record(
            options(entry),
            || {
                let mut start = Command::new("sh");
                start.args(["-c", &bundle.start()]).stdout(File::create(&out).expect("a file"));
                assert!(start.status().expect("sh").success());
            },
            |records, ()| segments(records).find(|s| own(s)).is_some_and(|s| ended(records, s).is_some()),
        );
        let container = segments(&records).find(|s| own(s)).expect("waited for");
        let ns = container.place.namespaces.expect("readable");
        let seen = fs::read_to_string(&out).expect("the container's output");
        let seen: HashMap<&str, &str> = seen.lines().filter_map(|line| line.split_once(' ')).collect();
        let host =
            |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).map(|l| l.display().to_string());
        let mut own_ones = Vec::new();
        for (kind, inode) in [
            ("mnt", ns.mnt),
            ("uts", ns.uts),
            ("ipc", ns.ipc),
            ("pid", ns.pid),
            ("pid_for_children", ns.pid_for_children),
            ("net", ns.net),
            ("cgroup", ns.cgroup),
            ("time", ns.time),
            ("user", ns.user),
        ] {
            let name = kind.trim_end_matches("_for_children");
            assert_eq!(seen[kind], format!("{name}:[{inode}]"), "{kind}");
            if host(kind).expect("readable") != seen[kind] {
                own_ones.push(kind);
            }
        }
        println!("its own: {own_ones:?}; mounts: {}", seen["mounts"]);
        assert!(
            own_ones.starts_with(&["mnt", "uts", "ipc", "pid", "pid_for_children", "net"]),
            "{own_ones:?}"
        );
        // A guest's root is beside its initramfs, whose mounts are in the namespace and in nobody's sight.
        let shell = segments(&records).find(|s| s.comm == "sh" && s.parent_tgid == std::process::id());
        let in_sight = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().count() as u32;
        let aside = shell.and_then(|sh| sh.place.mounts).expect("readable") - in_sight;
        let mounts = container.place.mounts.expect("readable") - aside;
        assert_eq!(mounts.to_string(), seen["mounts"], "{aside} aside");
    }
}
