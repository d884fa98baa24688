//! `kernel-gossip who` of real processes in real cgroups, compared with what the kernel's files say.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::bed::cgroup::{Cgroup, cpu_tree};
use crate::bed::kernel_gossip;

/// The pod and container of the recorded files.
const UID: &str = "d341e8db-112f-4371-804f-3616d814d3d6";

fn who(arguments: &[&str]) -> Output {
    let mut command = kernel_gossip();
    command.arg("who").args(arguments).env("HOME", "/nonexistent");
    command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    command.output().expect("run")
}

fn answer(arguments: &[&str]) -> Value {
    let output = who(&[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Why there is no answer.
fn refused(arguments: &[&str]) -> String {
    let output = who(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("text")
}

/// A process that sleeps until it is ended.
struct Sleeper(Child);

impl Sleeper {
    fn start(cgroup: &Cgroup, command: &mut Command) -> Sleeper {
        Sleeper(cgroup.spawn(command.stdout(Stdio::null()), None))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // An error means that it is reaped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

/// process-exporter#323, #239 and #265: the kernel cuts a name at 15 bytes, in the middle of a character if need be.
#[test]
fn a_name_that_is_cut_within_a_character_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("x同步同步同步");
    fs::copy("/bin/sleep", &program).expect("copied");
    let cgroup = Cgroup::new("who-cut");
    let process = Sleeper::start(&cgroup, Command::new(&program).arg("600"));
    let told = answer(&[&process.pid().to_string()]);
    assert_eq!(told["process"]["name"], "x同步同步\u{fffd}", "{told}");
    assert_eq!(told["workloads"][0]["cgroup"], cgroup.path());
}

/// systemd writes a machine's name with escapes, and prints its unit as it is written.
#[test]
fn a_machine_is_found_by_its_unit_and_by_its_name() {
    let unit = format!("machine-kg\\x2dwho\\x2d{}.scope", std::process::id());
    let parent = Cgroup::new("who-machine");
    let scope = parent.child(&unit);
    for called in [unit, format!("kg-who-{}", std::process::id())] {
        let told = answer(&[&called]);
        assert_eq!(told["workloads"][0]["cgroup"], scope.path(), "{called}: {told}");
    }
}

/// A directory of containerd's with the recorded files of one container under this id.
fn runtime(id: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let of = dir.path().join("io.containerd.runtime.v2.task/k8s.io").join(id);
    fs::create_dir_all(&of).expect("made");
    let recorded =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attribution/containerd-container.json");
    fs::copy(recorded, of.join("config.json")).expect("copied");
    dir
}

/// A container's id that no other test has.
fn id(n: u8) -> String {
    format!("{:056x}{:07x}{n:x}", 0xabc, std::process::id())
}

fn pids(workload: &Value) -> BTreeSet<u64> {
    let processes = workload["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
    processes.iter().filter_map(|p| p["pid"].as_u64()).collect()
}

/// What the kernel says of a process's namespaces.
fn namespaces(pid: u32) -> BTreeMap<String, u64> {
    let links = fs::read_dir(format!("/proc/{pid}/ns")).expect("its namespaces");
    let link = |entry: fs::DirEntry| {
        let kind = entry.file_name().into_string().expect("text");
        let target =
            fs::read_link(entry.path()).expect("a link").into_os_string().into_string().expect("text");
        let number = target.split(['[', ']']).nth(1).expect("a number").parse().expect("a number");
        (!kind.ends_with("_for_children")).then_some((kind, number))
    };
    links.filter_map(|entry| link(entry.expect("an entry"))).collect()
}

#[test]
fn a_process_is_told_with_its_pod_and_a_pod_with_its_processes() {
    let id = id(1);
    let files = runtime(&id);
    let runtime = format!("--runtime-root={}", files.path().display());
    let pod = Cgroup::at(&format!("kubepods/burstable/pod{UID}"));
    let container = pod.child(&id);
    let below = container.child("init.scope");
    let (first, second) = (Sleeper::start(&below, &mut sleep()), Sleeper::start(&below, &mut sleep()));
    let both = BTreeSet::from([first.pid(), second.pid()].map(u64::from));

    let told = answer(&[&first.pid().to_string(), &runtime]);
    let process = &told["process"];
    assert_eq!((&process["name"], &process["command"]), (&"sleep".into(), &"sleep 600".into()));
    let numbers: BTreeMap<String, u64> =
        serde_json::from_value(process["namespaces"].clone()).expect("numbers");
    assert_eq!(numbers, namespaces(first.pid()));
    let [workload] = &told["workloads"].as_array().expect("a list")[..] else { panic!("{told}") };
    let expected = [
        ("kind", "container"),
        ("name", "kg-attr/burn/burn"),
        ("namespace", "kg-attr"),
        ("pod", "burn"),
        ("podUid", UID),
        ("container", "burn"),
        ("containerId", &id),
        ("cgroup", &container.path()),
    ];
    for (field, value) in expected {
        assert_eq!(workload[field], value, "{field} in {told}");
    }
    let number = fs::metadata(container.dir()).expect("there").ino();
    let ids = workload["cgroupIds"].as_array().expect("a list");
    assert!(ids.iter().any(|of| of["id"] == number), "{number} in {told}");
    assert_eq!(told["unknown"][0]["what"], "owner, request and limit");
    assert!(
        told["unknown"][0]["why"].as_str().is_some_and(|why| why.contains("no Kubernetes here")),
        "{told}"
    );

    // And back, however the pod is called.
    for called in ["burn", "kg-attr/burn", UID] {
        let told = answer(&[called, &runtime]);
        let kinds: Vec<_> =
            told["workloads"].as_array().expect("a list").iter().map(|w| &w["kind"]).collect();
        assert_eq!(kinds, ["pod", "container"], "{called}: {told}");
        assert_eq!(pids(&told["workloads"][1]), both, "{called}: {told}");
    }
    let by_id = format!("cgroup:{number}");
    let in_file_system = container.dir().display().to_string();
    // As `kubectl get pod -o yaml` has it, and by another way to the directory, as cgroup v1's links are.
    let api = format!("containerd://{id}");
    let link = files.path().join("link");
    std::os::unix::fs::symlink(cpu_tree().mount.as_path(), &link).expect("linked");
    let linked = format!("{}{}", link.display(), container.path());
    let round_about = format!("{in_file_system}/init.scope/..");
    for called in [
        "kg-attr/burn/burn",
        &id[..12],
        &api,
        &container.path(),
        &below.path(),
        &in_file_system,
        &linked,
        &round_about,
        &by_id,
    ] {
        let told = answer(&[called, &runtime]);
        let found = told["workloads"].as_array().expect("a list");
        // v1 and v2 number cgroups on their own: another may have the same number.
        let found = found.iter().find(|w| w["name"] == "kg-attr/burn/burn");
        assert_eq!(found.map(pids).as_ref(), Some(&both), "{called}: {told}");
    }

    let text = who(&["burn", &runtime]);
    let text = String::from_utf8(text.stdout).expect("text");
    for line in [
        "pod          kg-attr/burn\n".to_owned(),
        "container    kg-attr/burn/burn\n".to_owned(),
        "named by     the container runtime's files\n".to_owned(),
        "processes    2\n".to_owned(),
        format!("               {} sleep: sleep 600\n", first.pid()),
        "not known    owner, request and limit: no Kubernetes here".to_owned(),
    ] {
        assert!(text.contains(&line), "{line:?} in\n{text}");
    }
}

#[test]
fn what_nobody_names_is_told_as_that_with_the_reason() {
    let id = id(2);
    let empty = tempfile::tempdir().expect("a directory");
    let runtime = format!("--runtime-root={}", empty.path().display());
    let uid = "00000000-1111-4222-8333-444444444444";
    let container = Cgroup::at(&format!("kubepods/besteffort/pod{uid}/{id}"));
    let process = Sleeper::start(&container, &mut sleep());
    let told = answer(&[&process.pid().to_string(), &runtime]);
    let workload = &told["workloads"][0];
    assert_eq!((&workload["podUid"], &workload["containerId"]), (&uid.into(), &id.clone().into()));
    assert_eq!((&workload["pod"], &workload["name"]), (&Value::Null, &container.path().into()));
    let unknown = |what: &str| {
        let all = told["unknown"].as_array().expect("a list");
        all.iter().find(|u| u["what"] == what).map(|u| u["why"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(unknown("names").as_deref(), Some("no runtime here has files of this container"), "{told}");
    assert!(unknown("owner, request and limit").is_some(), "{told}");
    // One that cannot be understood is told with what is wrong with it.
    let of = empty.path().join("io.containerd.runtime.v2.task/k8s.io").join(&id);
    fs::create_dir_all(&of).expect("made");
    fs::write(of.join("config.json"), "{\"annotations\": {").expect("written");
    let told = answer(&[&id, &runtime]);
    let all = told["unknown"].as_array().expect("a list");
    assert!(
        all.iter().any(|u| u["why"].as_str().is_some_and(|why| why.contains("config.json: EOF"))),
        "{told}"
    );
}

/// As in the agent's pod, which has no hostPID: names are told, and why there are no processes.
#[test]
fn another_pid_namespace_is_told_as_the_reason() {
    let cgroup = Cgroup::new("who-namespace");
    let _process = Sleeper::start(&cgroup, &mut sleep());
    let program = kernel_gossip();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc"]).arg(program.get_program());
    let output = unshare.args(["who", &cgroup.path(), "--output=json"]).output().expect("unshare");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["workloads"][0]["cgroup"], cgroup.path());
    assert_eq!(told["workloads"][0]["processCount"], Value::Null, "not 0: {told}");
    let unknown = told["unknown"].as_array().expect("a list");
    assert!(unknown.iter().any(|u| u["what"] == "processes"), "{told}");
}

#[test]
fn who_is_not_there_is_told_with_exit_code_1() {
    assert!(refused(&["4194304"]).contains("there is no process 4194304"));
    assert!(refused(&["99999999999"]).contains("there is no process"));
    assert!(refused(&["/no/such"]).contains("there is no cgroup \"/no/such\" in /sys/fs/cgroup"));
    assert!(refused(&["cgroup:18446744073709551615"]).contains("there is no cgroup with the id"));
    assert!(refused(&["shop/nobody"]).contains("is called \"shop/nobody\""));
    assert!(refused(&[""]).contains("nothing is asked for"));
    assert!(refused(&["/", "--cgroup-root=/nonexistent"]).contains("name the place by --cgroup-root"));
    assert_eq!(who(&[]).status.code(), Some(2), "usage");
}

#[test]
fn a_process_that_ends_meanwhile_is_told_as_far_as_it_was_read_or_as_gone() {
    // Ended, and not reaped: its number is still its own.
    let mut ended = Command::new("true").spawn().expect("started");
    let state = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("not reaped");
        stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next())
    };
    crate::bed::until("its end", || (state(ended.id()) == Some('Z')).then_some(()));
    let told = answer(&[&ended.id().to_string()]);
    assert_eq!(told["process"]["zombie"], true, "{told}");
    assert_eq!(told["unknown"][0]["why"], "the process has ended", "{told}");
    ended.wait().expect("reaped");
    assert!(refused(&[&ended.id().to_string()]).contains("there is no process"));
    for _ in 0..20 {
        let mut brief = Command::new("true").spawn().expect("started");
        let reaper = std::thread::spawn({
            let pid = brief.id().to_string();
            move || who(&[&pid])
        });
        brief.wait().expect("reaped");
        let output = reaper.join().expect("joined");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn hostile_names_are_shown_plain() {
    let dir = tempfile::tempdir().expect("a directory");
    // A program's file, its arguments and its cgroup, as whoever may start it calls them.
    let program = dir.path().join("a\u{1b}[2J\u{202e}");
    fs::copy("/bin/sleep", &program).expect("copied");
    let parent = Cgroup::new("who-hostile");
    let name = OsStr::from_bytes(b"caf\xe9\x1b[31m\t<b>");
    fs::create_dir(parent.dir().join(name)).expect("made");
    let mut command = Command::new(&program);
    command.arg0(format!("{}\u{1b}]0;owned\u{7}\u{9b}", "x".repeat(100))).arg("600");
    command.args(std::iter::repeat_n("0", 20_000));
    let process = Sleeper::start(&parent, &mut command);
    fs::write(parent.dir().join(name).join("cgroup.procs"), process.pid().to_string()).expect("moved");

    let pid = process.pid().to_string();
    let path = format!("{}/caf\\xe9\\x1b[31m\\x09<b>", parent.path());
    let told = answer(&[&pid]);
    assert_eq!(told["workloads"][0]["cgroup"], path, "{told}");
    assert_eq!(pids(&answer(&[&path])["workloads"][0]), BTreeSet::from([u64::from(process.pid())]));
    let above = parent.path();
    let by_bytes = [cpu_tree().mount.as_os_str().as_bytes(), above.as_bytes(), b"/", name.as_bytes()];
    let mut command = kernel_gossip();
    let output = command.arg("who").arg(OsStr::from_bytes(&by_bytes.concat())).output().expect("run");
    assert_eq!(output.status.code(), Some(2), "what is no text is no argument: {output:?}");
    for output in [who(&[&pid]), who(&[&pid, "--output=json"]), who(&[&path]), who(&["a\u{1b}[2J"])] {
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8(text).expect("text");
            let bad = |c: &char| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c);
            assert_eq!(text.chars().find(bad), None, "{text:?}");
            assert!(text.len() < 4096, "{} bytes", text.len());
        }
    }
}
