//! The helpers of the other tests hold on every kernel and cgroup version.

use std::process::Command;
use std::time::Duration;

use crate::bed::cgroup::{Cgroup, Version, cpu_tree};
use crate::bed::process::Running;
use crate::bed::until;

const PERIOD: Duration = Duration::from_millis(20);

#[test]
fn a_limited_group_is_throttled_and_a_free_one_is_not() {
    let pod = Cgroup::new("limit");
    let limited = pod.child("limited");
    let free = pod.child("free");
    limited.limit(Some(PERIOD / 10), PERIOD);
    let burners = (limited.burn(2, Some(0)), free.burn(1, Some(0)));
    until("throttling", || (limited.throttled() > 5 * PERIOD).then_some(()));
    assert!(limited.cpu_stat("nr_throttled") > 0);
    assert_eq!(free.throttled(), Duration::ZERO);
    assert_eq!(limited.read("cgroup.procs").lines().count(), 2);
    drop(burners);
    assert_eq!(limited.read("cgroup.procs"), "");

    limited.limit(None, PERIOD);
    let before = limited.cpu_stat("nr_throttled");
    let _burners = limited.burn(1, Some(0));
    let usage = || free_running_time(&limited);
    let start = usage();
    until("2 periods of CPU time", || (usage() > start + 2 * PERIOD).then_some(()));
    assert_eq!(limited.cpu_stat("nr_throttled"), before);
}

/// CPU time of the one process in the group.
fn free_running_time(group: &Cgroup) -> Duration {
    let pid = group.read("cgroup.procs").trim().parse().expect("one process");
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).expect("its stat");
    Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

#[test]
fn a_burner_runs_in_its_group_on_its_cpu() {
    let group = Cgroup::new("place");
    let burners = group.burn(1, Some(0));
    let pid = burners.pids().next().expect("one");
    assert_eq!(group.read("cgroup.procs").trim(), pid.to_string());
    let process = procfs::process::Process::new(pid as i32).expect("the burner");
    assert_eq!(process.status().expect("status").cpus_allowed_list, Some(vec![(0, 0)]));
    let groups = process.cgroups().expect("its cgroups").0;
    let of_cpu = |controllers: &[String]| match cpu_tree().version {
        Version::V1 => controllers.iter().any(|name| name == "cpu"),
        Version::V2 => controllers.iter().all(String::is_empty),
    };
    let path = groups.iter().find(|group| of_cpu(&group.controllers)).map(|group| group.pathname.clone());
    assert_eq!(path.as_deref(), Some(group.path().as_str()));
}

#[test]
fn a_group_goes_with_what_is_in_and_below_it() {
    let group = Cgroup::new("drop");
    let dir = group.dir().to_owned();
    let below = group.child("below");
    let inner = below.child("inner");
    let mut orphan = inner.spawn(Command::new("/bin/sh").args(["-c", "sleep 1000 & wait"]), None);
    until("two processes", || (inner.read("cgroup.procs").lines().count() == 2).then_some(()));
    // Only the outer one is dropped.
    std::mem::forget(inner);
    std::mem::forget(below);
    let reaper = std::thread::spawn(move || orphan.wait());
    drop(group);
    assert!(!dir.exists());
    assert_eq!(reaper.join().expect("the thread").expect("wait").code(), None);
}

#[test]
fn lines_are_kept_in_order_and_told_apart() {
    let script = "echo one; echo two; echo three >&2; trap 'echo bye; exit 7' TERM; echo ready; \
                  while :; do sleep 0.01; done";
    let mut shell = Running::start(Command::new("/bin/sh").args(["-c", script]));
    assert_eq!(shell.says("o").text, "one");
    assert_eq!(shell.says("o").text, "two");
    shell.says("ready");
    let (status, lines, _) = shell.terminate();
    assert_eq!(status.code(), Some(7));
    let stdout: Vec<_> = lines.iter().filter(|line| !line.to_stderr).map(|line| &line.text[..]).collect();
    assert_eq!(stdout, ["one", "two", "ready", "bye"]);
    assert!(lines.iter().any(|line| line.to_stderr && line.text == "three"));
}

#[test]
#[should_panic(expected = "without a line: never")]
fn a_line_that_cannot_come_is_not_waited_for() {
    Running::start(Command::new("/bin/sh").args(["-c", "echo only this"])).says("never");
}

#[test]
fn a_dropped_program_is_killed() {
    let running = Running::start(Command::new("/bin/sleep").arg("1000"));
    let pid = running.pid() as i32;
    drop(running);
    // Reaped as well: the id is free.
    assert!(procfs::process::Process::new(pid).is_err());
}
