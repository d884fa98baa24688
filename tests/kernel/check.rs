//! `kernel-gossip check` on the kernel that runs the test. (What no kernel matters to: tests/host/check.rs.)

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::bed::process::without_capabilities;
use kernel_gossip::kernel::facts::{Facts, Trial};
use kernel_gossip::kernel::oom::OomHook;
use kernel_gossip::kernel::plan::{Plan, plan};
use kernel_gossip::kernel::reclaim::ReclaimHook;
use kernel_gossip::kernel::rehearsal::Rehearsal;
use procfs::KernelVersion;

fn check(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernel-gossip"));
    command.arg("check").args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command
}

/// What it says here. (Once for all: an emulated CPU takes eight seconds.)
static HERE: LazyLock<Output> = LazyLock::new(|| check(&["--output", "json"]).output().expect("run"));

fn report(out: &Output) -> (Facts, Plan) {
    let mut report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    });
    let facts: Facts = serde_json::from_value(report["facts"].take()).expect("facts");
    let planned: Plan = serde_json::from_value(report["plan"].take()).expect("a plan");
    assert_eq!(planned, plan(&facts), "the plan follows from the facts");
    assert_eq!(report["runs"], planned.runs());
    (facts, planned)
}

#[test]
fn facts_are_those_of_this_kernel() {
    let out = &*HERE;
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "", "expected failures are silent");
    let (facts, planned) = report(out);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the release");
    assert_eq!(facts.kernel.release, release.trim());
    assert_eq!(facts.btf.error, None);
    assert!(facts.btf.throttled_clock_pelt_time || facts.btf.throttled_clock_task_time);
    assert!(facts.privileges.has("BPF") && facts.privileges.has("PERFMON"));
    for (what, trial) in [
        ("tp_btf", &facts.trials.tp_btf),
        ("raw_tracepoint", &facts.trials.raw_tracepoint),
        ("ring_buffer", &facts.trials.ring_buffer),
        ("iter/task", &facts.trials.iter_task),
    ] {
        assert_eq!(*trial, Trial::Works, "{what}");
    }
    let kernel = KernelVersion::current().expect("the kernel's version");
    assert_eq!(facts.trials.fetch_atomics.works(), kernel >= KernelVersion::new(5, 12, 0));
    assert_eq!(facts.btf.throttled_clock_self_time, kernel >= KernelVersion::new(6, 6, 0));
    for iterator in [&facts.trials.iter_cgroup, &facts.trials.rstat_flush] {
        assert_eq!(iterator.works(), kernel >= KernelVersion::new(6, 1, 0), "{iterator:?}");
    }
    let packets = planned.drops.hook().map(|drops| drops.hook.is_some());
    assert_eq!(packets, Some(kernel >= KernelVersion::new(6, 1, 0)), "{planned:?}");
    let mount = facts.cgroups.cpu_mount().expect("the tree of the cpu controller");
    assert!(mount.join("cgroup.procs").exists(), "{}", mount.display());
    for (_, tree) in facts.cgroups.iter() {
        assert!(tree.whole, "{tree:?}");
    }
    assert!(planned.cpu.hook().is_some(), "{planned:?}");
}

/// What became of the programs that are to run, by probe: the error and what to do.
fn programs(out: &Output) -> BTreeMap<String, (Option<String>, Option<String>)> {
    let mut report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let all: Vec<Rehearsal> = serde_json::from_value(report["programs"].take()).expect("programs");
    all.into_iter().map(|p| (p.probe, (p.error, p.what_to_do))).collect()
}

#[test]
fn the_programs_that_will_run_are_loaded() {
    let (facts, planned) = report(&HERE);
    let mut expected = vec!["OOM kills", "births", "cgroup tracepoints", "cpu", "reclaim"];
    if planned.cgroups.hook().is_some_and(|hook| hook.iterator) {
        expected.push("cgroup iterator");
    }
    if planned.drops.hook().is_some() {
        expected.push("drops");
    }
    expected.sort_unstable();
    let programs = programs(&HERE);
    assert_eq!(programs.keys().collect::<Vec<_>>(), expected, "{facts:?}");
    assert!(programs.values().all(|outcome| *outcome == (None, None)), "{programs:?}");
}

/// Where hardly a file may be opened, it says so: a library that opened one late panicked before kernel 6.4.
#[test]
fn with_few_files_it_reports_all_the_same() {
    let mut few = Command::new("prlimit");
    few.args(["--nofile=32:32", env!("CARGO_BIN_EXE_kernel-gossip"), "check", "--output", "json"]);
    let out = few.env_remove("KUBECONFIG").env("HOME", "/nonexistent").output().expect("prlimit");
    report(&out);
    assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"), "{out:?}");
}

#[test]
fn without_capabilities_files_remain() {
    // As root, without any.
    let out = without_capabilities(&mut check(&["--output", "json"])).output().expect("run");
    assert!(out.status.success(), "{out:?}");
    let (facts, planned) = report(&out);
    assert_eq!(facts.privileges.capabilities, [""; 0]);
    assert_eq!(facts.btf.error, None, "types can be read by everyone");
    assert!(facts.trials.iter().all(|(_, trial)| matches!(trial, Trial::LoadFails(_))), "{facts:?}");
    assert!(planned.cpu.hook().is_none());
    assert!(planned.cgroups.hook().is_some_and(|hook| !hook.iterator && hook.tracepoints.is_none()));
    assert_eq!(planned.oom.hook(), Some(&OomHook::Counts));
    assert_eq!(planned.reclaim.hook(), Some(&ReclaimHook::Files));
}
