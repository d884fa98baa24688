use std::fs;

use super::*;

/// What `check` writes about a recorded host.
fn told(host: &str, unknown_shapes: &[String]) -> String {
    let path = format!("{}/tests/fixtures/hosts/{host}.json", env!("CARGO_MANIFEST_DIR"));
    let facts = serde_json::from_str(&fs::read_to_string(path).expect("recorded")).expect("facts");
    let mut out = Vec::new();
    let runtime = Directory { runtime: "containerd", path: "/run/containerd/x".into(), error: None };
    let found = Found {
        facts: &facts,
        plan: &plan(&facts),
        programs: &[],
        runtimes: &[runtime],
        otlp: &[],
        unknown_cgroup_shapes: unknown_shapes,
    };
    write_text(&mut out, &found).expect("a vector takes it");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_locked_down_host() {
    let expected = "\
kernel       6.12.107+deb13-cloud-amd64 x86_64
types (BTF)  readable
lockdown     confidentiality
privileges   root with BPF, PERFMON, SYS_ADMIN, SYS_PTRACE, SYS_RESOURCE
cgroup tree  unified: /sys/fs/cgroup
pressure     readable
BPF allowed  tp_btf, raw_tracepoint, iter/cgroup, rstat_flush, iter/task, ring_buffer, fetch_atomics, fentry, lsm
BPF refused  tracepoint: attach: failed to attach BPF program: No such file or directory (os error 2)
BPF refused  read_kernel: load: Invalid argument (os error 22)
BPF refused  kprobe: attach: failed to attach BPF program: Operation not permitted (os error 1)
runtime      containerd: /run/containerd/x

✓ cpu        working      scheduler's typed tracepoints
~ cgroups    degraded     files, new ones by walking the trees
    files are read, some for each cgroup: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
    a cgroup that lives for less than an interval is not seen: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
~ births     degraded     typed tracepoints that read no memory, while a pod starts
    no arguments, file names, mounts, writes to cgroup files or netfilter rules in a birth: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
    a birth is noticed late, and what was done until then is missing: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
~ oom        degraded     counts in cgroup files
    OOM kills are only counted, seconds later: not who was killed, at which limit, and who asked for the memory: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
~ reclaim    degraded     cgroup files
    memory pressure does not say whether a limit or the node is short: lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
✗ drops      unavailable
    lockdown=confidentiality keeps BPF from reading kernel memory
      -> boot with lockdown=integrity or none if that may be
✗ kubernetes unavailable
    no kubeconfig and no service account
      -> nothing, unless this is a Kubernetes node: then set KUBECONFIG or run in a pod
";
    assert_eq!(told("debian-6.12-lockdown-confidentiality", &[]), expected);
}

#[test]
fn what_a_container_lacks() {
    let text = told("debian-6.12-own-cgroup", &[]);
    for line in [
        "cgroup tree  unified: /sys/fs/cgroup, of which only this process's own part is seen\n",
        "~ cgroups    degraded     iterator, new ones by typed tracepoints\n",
        "      -> mount the host's /sys/fs/cgroup here and name the place by --cgroup-root\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let user = told("debian-6.1-user", &[]);
    for line in [
        "privileges   user 65534, no capability of use here\n",
        "BPF allowed  nothing\n",
        "✗ cpu        unavailable\n    BPF is refused without CAP_BPF and CAP_PERFMON\n",
    ] {
        assert!(user.contains(line), "{line:?} in\n{user}");
    }
}

#[test]
fn unknown_shapes_are_shown() {
    let text = told("debian-newest-v2", &["/odd/pod123".to_string(), "/odder".to_string()]);
    assert!(text.contains("cgroup path of no known shape: /odd/pod123\n"), "{text}");
    assert!(text.contains("cgroup path of no known shape: /odder\n"), "{text}");
}

#[test]
fn a_host_with_nothing_to_read_is_told_so() {
    let path = format!("{}/tests/fixtures/hosts/debian-6.1-user.json", env!("CARGO_MANIFEST_DIR"));
    let mut facts: Facts = serde_json::from_str(&fs::read_to_string(path).expect("recorded")).expect("facts");
    facts.cgroups.unified = None;
    let mut out = Vec::new();
    let found = Found {
        facts: &facts,
        plan: &plan(&facts),
        programs: &[],
        runtimes: &[],
        otlp: &[],
        unknown_cgroup_shapes: &[],
    };
    write_text(&mut out, &found).expect("a vector takes it");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.ends_with("The agent cannot run here: there is nothing for it to read.\n"), "{text}");
}

#[test]
fn a_program_that_does_not_load_is_told_with_what_to_do() {
    let path = format!("{}/tests/fixtures/hosts/debian-6.12-v2.json", env!("CARGO_MANIFEST_DIR"));
    let facts: Facts = serde_json::from_str(&fs::read_to_string(path).expect("recorded")).expect("facts");
    let programs = [
        Rehearsal { probe: "births".into(), error: None, what_to_do: None },
        Rehearsal {
            probe: "cpu".into(),
            error: Some("cpu probe: cannot load the programs: Argument list too long (os error 7)".into()),
            what_to_do: Some("report it".into()),
        },
    ];
    let found = Found {
        facts: &facts,
        plan: &plan(&facts),
        programs: &programs,
        runtimes: &[],
        otlp: &[],
        unknown_cgroup_shapes: &[],
    };
    let mut out = Vec::new();
    write_text(&mut out, &found).expect("a vector takes it");
    let text = String::from_utf8(out).expect("UTF-8");
    for line in [
        "loaded       births\n",
        "✗ cpu        does not load: this part is missing in the agent\n    cpu probe: cannot load the programs: \
         Argument list too long (os error 7)\n      -> report it\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

#[test]
fn directories_of_runtimes_that_are_missing_or_closed_are_told_with_what_to_do() {
    let told = |runtimes: &[Directory], confined: Option<&str>| {
        let mut out = Vec::new();
        write_runtimes(&mut out, runtimes, confined).expect("a vector takes it");
        String::from_utf8(out).expect("UTF-8")
    };
    let directory = |error: Option<&str>| Directory {
        runtime: "containerd",
        path: "/run/containerd/x".into(),
        error: error.map(str::to_owned),
    };
    assert_eq!(told(&[directory(None)], Some("container_t")), "");
    assert!(told(&[], None).contains("--runtime-root"));
    let closed = [directory(Some("Permission denied (os error 13)"))];
    assert!(told(&closed, Some("container_t")).contains("spc_t"));
    assert!(!told(&closed, None).contains("SELinux"));
}
