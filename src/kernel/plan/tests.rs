use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::kernel::cpu::ThrottleClock;
use crate::kernel::facts::Trial;
use crate::kernel::oom::OomHook;
use crate::kernel::reclaim::ReclaimHook;
use crate::kernel::recorder::Entry;
use crate::kernel::{Hierarchy, Hook};

fn hosts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hosts")
}

/// The facts as recorded on this host.
fn recorded(host: &str) -> Facts {
    let path = hosts().join(format!("{host}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

const BTF: Option<Hook> = Some(Hook::TpBtf);
const NO: Option<Hook> = None;

/// Host, CPU probe (hook, clock, atomics, tree), cgroups (by iterator, new ones by). Births are recorded in full
/// wherever new cgroups are told by tracepoints.
type Expected = (&'static str, Option<(Hook, ThrottleClock, bool, Hierarchy)>, (bool, Option<Hook>));

#[test]
fn what_runs_on_each_recorded_host() {
    use Hierarchy::{Unified, V1Cpu};
    use ThrottleClock::{Exact, Scaled};
    let cpu = |clock, atomics, tree| Some((Hook::TpBtf, clock, atomics, tree));
    let expected: &[Expected] = &[
        ("debian-5.10-v2", cpu(Scaled, false, Unified), (false, BTF)),
        ("debian-5.10-v1", cpu(Scaled, false, V1Cpu), (false, BTF)),
        ("debian-5.10-bpf-perfmon", None, (false, NO)),
        ("debian-5.10-no-psi", cpu(Scaled, false, Unified), (false, BTF)),
        ("debian-6.1-v2", cpu(Scaled, true, Unified), (true, BTF)),
        ("debian-6.1-hybrid", cpu(Scaled, true, V1Cpu), (false, BTF)),
        ("debian-6.1-user", None, (false, NO)),
        ("debian-6.1-no-btf", None, (false, NO)),
        ("debian-6.12-v2", cpu(Exact, true, Unified), (true, BTF)),
        ("debian-6.12-bpf-perfmon", cpu(Exact, true, Unified), (true, BTF)),
        ("debian-6.12-lockdown-integrity", cpu(Exact, true, Unified), (true, BTF)),
        ("debian-6.12-lockdown-confidentiality", cpu(Exact, true, Unified), (false, NO)),
        ("debian-6.12-user-namespace", None, (false, NO)),
        ("debian-6.12-no-psi", cpu(Exact, true, Unified), (true, BTF)),
        ("debian-6.12-own-cgroup", cpu(Exact, true, Unified), (true, BTF)),
        ("debian-newest-v2", cpu(Exact, true, Unified), (true, BTF)),
        ("local-6.18-hybrid", cpu(Exact, true, V1Cpu), (false, BTF)),
        ("local-6.18-hybrid-user", None, (false, NO)),
        ("local-6.18-hybrid-bpf-perfmon", cpu(Exact, true, V1Cpu), (false, BTF)),
    ];
    for (host, cpu, cgroups) in expected {
        let plan = plan(&recorded(host));
        let planned = plan.cpu.hook().map(|c| (c.hook, c.throttle_clock, c.atomics, c.hierarchy));
        assert_eq!(planned, *cpu, "{host}");
        let planned = plan.cgroups.hook().map(|c| (c.iterator, c.tracepoints));
        assert_eq!(planned, Some(*cgroups), "{host}");
        let births = plan.births.hook().map(|b| (b.entry, b.triggered));
        match *host {
            "debian-6.12-lockdown-confidentiality" => assert_eq!(births, Some((Entry::Bare, false))),
            _ => assert_eq!(births, cgroups.1.map(|_| (Entry::TpBtf, true)), "{host}"),
        }
        // The recordings are older than the fact; the kernels from 6.1 on have it.
        let mut facts = recorded(host);
        facts.btf.drop_reasons = facts.btf.error.is_none() && !host.contains("5.10");
        let drops = super::plan(&facts).drops.hook().map(|drops| (drops.hierarchy, drops.hook.is_some()));
        let packets = !host.contains("5.10") && facts.trials.iter_cgroup.works();
        let reads = facts.trials.read_kernel.works() && (packets || facts.trials.raw_tracepoint.works());
        assert_eq!(drops, cpu.filter(|_| reads).map(|cpu| (cpu.3, packets)), "{host}");
        assert!(plan.runs(), "{host}");
    }
    let mut named: Vec<_> = expected.iter().map(|(host, ..)| format!("{host}.json")).collect();
    named.sort();
    let files = fs::read_dir(hosts()).expect("the recordings");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    let mut recorded: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
    recorded.sort();
    assert_eq!(named, recorded, "every recorded host is planned for");
}

/// The one shortfall of a probe whose reason contains `part`.
fn shortfall<'v, H>(verdict: &'v Verdict<H>, part: &str) -> &'v Shortfall {
    let mut matching = verdict.shortfalls().iter().filter(|s| s.why.contains(part));
    let found = matching.next();
    found.unwrap_or_else(|| panic!("nothing about {part:?} in {:?}", verdict.shortfalls()))
}

#[test]
fn nothing_is_lacking_on_a_new_kernel() {
    let plan = plan(&recorded("debian-newest-v2"));
    assert!(matches!(plan.cpu, Verdict::Working { .. }), "{:?}", plan.cpu);
    assert!(matches!(plan.cgroups, Verdict::Working { .. }), "{:?}", plan.cgroups);
    assert!(matches!(plan.births, Verdict::Working { .. }), "{:?}", plan.births);
    assert!(matches!(plan.oom, Verdict::Working { .. }), "{:?}", plan.oom);
}

#[test]
fn kills_are_seen_or_at_least_counted() {
    let hook = |facts: &Facts| plan(facts).oom.hook().copied();
    let mut facts = recorded("debian-6.12-v2");
    assert_eq!(
        hook(&facts),
        Some(OomHook::SignalAndVictim),
        "as on a host recorded before the fact was asked for"
    );
    facts.btf.mark_victim_task = true;
    assert_eq!(hook(&facts), Some(OomHook::Victim));
    for host in ["debian-6.1-user", "local-6.18-hybrid-user", "debian-6.12-lockdown-confidentiality"] {
        let facts = recorded(host);
        assert_eq!(hook(&facts), Some(OomHook::Counts), "{host}");
        shortfall(&plan(&facts).oom, "only counted");
    }
    facts.trials.ring_buffer = Trial::LoadFails("Operation not permitted (os error 1)".into());
    assert!(shortfall(&plan(&facts).oom, "os error 1").what_to_do.contains("security module"));
    facts.cgroups.unified = None;
    assert!(matches!(plan(&facts).oom, Verdict::Unavailable(_)), "nothing is counted either");
}

#[test]
fn reclaim_is_seen_or_its_effects_are_read() {
    let mut facts = recorded("debian-6.12-v2");
    assert!(shortfall(&plan(&facts).reclaim, "does not tell of reclaim").what_to_do.contains("CONFIG_MEMCG"));
    facts.btf.reclaim_tracepoints = true;
    assert_eq!(plan(&facts).reclaim, Verdict::Working { hook: ReclaimHook::Tracepoints });
    for host in ["debian-6.1-user", "local-6.18-hybrid-user", "debian-6.12-lockdown-confidentiality"] {
        let mut facts = recorded(host);
        facts.btf.reclaim_tracepoints = true;
        let plan = plan(&facts);
        assert_eq!(plan.reclaim.hook(), Some(&ReclaimHook::Files), "{host}");
        shortfall(&plan.reclaim, "a limit or the node");
    }
    facts.cgroups.unified = None;
    shortfall(&plan(&facts).reclaim, "is not mounted here");
}

/// Packets are not told of where the kernel says of none why it was dropped, or namespaces cannot be found by cgroups: the
/// namespaces' counters alone are read, and nothing where that is not allowed.
#[test]
fn drops_need_reasons_and_an_iterator() {
    let new = plan(&recorded("debian-newest-v2"));
    assert_eq!(new.drops.hook().map(|drops| drops.hook), Some(None));
    shortfall(&new.drops, "does not say why a packet is dropped");
    let mut old = recorded("debian-5.10-v2");
    assert_eq!(plan(&old).drops.hook().map(|drops| drops.hook), Some(None));
    assert!(shortfall(&plan(&old).drops, "no iterator over cgroups").what_to_do.contains("6.1"));
    old.trials.read_kernel = Trial::LoadFails("Operation not permitted (os error 1)".into());
    assert!(matches!(plan(&old).drops, Verdict::Unavailable(_)));
}

/// Each cause is distinguished from the others, which give the same error codes.
#[test]
fn the_reason_is_named() {
    for (host, why, what_to_do) in [
        ("debian-6.1-user", "CAP_BPF and CAP_PERFMON", "add: [BPF, PERFMON]"),
        ("local-6.18-hybrid-user", "CAP_BPF and CAP_PERFMON", "add: [BPF, PERFMON]"),
        ("debian-6.1-no-btf", "vmlinux: No such file", "CONFIG_DEBUG_INFO_BTF"),
        ("debian-6.12-user-namespace", "user namespace", "hostUsers"),
        ("debian-5.10-bpf-perfmon", "no more than 64 KiB", "CAP_SYS_RESOURCE"),
    ] {
        let plan = plan(&recorded(host));
        assert!(matches!(plan.cpu, Verdict::Unavailable(_)), "{host}");
        assert!(matches!(plan.births, Verdict::Unavailable(_)), "{host}");
        shortfall(&plan.births, why);
        assert!(shortfall(&plan.cpu, why).what_to_do.contains(what_to_do), "{host}");
        assert!(shortfall(&plan.cgroups, "less than an interval").what_to_do.contains(what_to_do), "{host}");
    }
}

/// A cause is one line, however much it takes away.
#[test]
fn a_host_without_types_is_told_so_in_one_line() {
    let lines = plan(&recorded("debian-6.1-no-btf")).summary();
    let text: Vec<_> = lines.iter().map(|line| (line.lacking, line.text.as_str())).collect();
    let expected = "cpu: unavailable, cgroups: degraded (files, new ones by walking the trees), births: unavailable, \
                    oom: degraded (counts in cgroup files), reclaim: degraded (cgroup files), drops: unavailable: the kernel's types (BTF) cannot be read: /sys/kernel/btf/vmlinux: No such file or directory \
                    (os error 2): use a kernel with CONFIG_DEBUG_INFO_BTF, and let the file be read";
    assert_eq!(text, [(true, expected)]);
}

#[test]
fn each_recorded_host_is_told_in_words_once_a_cause() {
    for file in fs::read_dir(hosts()).expect("the recordings") {
        let name = file.expect("a file").file_name().into_string().expect("UTF-8");
        let Some(host) = name.strip_suffix(".json") else { continue };
        let planned = plan(&recorded(host));
        let lines = planned.summary();
        for probe in ["cpu: ", "cgroups: ", "births: ", "oom: ", "reclaim: "] {
            assert!(lines.iter().any(|line| line.text.contains(probe)), "{host}: {probe}{lines:?}");
        }
        assert!(lines.iter().all(|line| !line.text.contains(['{', '\n'])), "{host}: {lines:?}");
        for shortfall in planned.probes().flat_map(|probe| probe.shortfalls) {
            let telling = lines.iter().filter(|line| line.text.contains(&shortfall.cause)).count();
            assert_eq!(telling, 1, "{host}: {} in {lines:?}", shortfall.cause);
        }
    }
}

#[test]
fn lockdown_takes_the_cgroup_programs_and_the_names_in_births_only() {
    let plan = plan(&recorded("debian-6.12-lockdown-confidentiality"));
    assert!(matches!(plan.cpu, Verdict::Working { .. }), "{:?}", plan.cpu);
    for lost in ["files are read", "lives for less than an interval"] {
        assert!(shortfall(&plan.cgroups, lost).why.contains("lockdown=confidentiality"));
    }
    for lost in ["no arguments, file names, mounts", "noticed late"] {
        assert!(shortfall(&plan.births, lost).why.contains("lockdown=confidentiality"));
    }
}

#[test]
fn an_old_kernel_is_told_by_what_it_lacks() {
    let plan = plan(&recorded("debian-5.10-v2"));
    assert!(shortfall(&plan.cpu, "lower bound").what_to_do.contains("5.12"));
    assert!(shortfall(&plan.cpu, "slows down with the CPU").what_to_do.contains("6.6"));
    assert!(shortfall(&plan.cgroups, "no iterator over cgroups").what_to_do.contains("6.1"));
}

#[test]
fn trees_and_pressure() {
    let v1 = plan(&recorded("debian-5.10-v1"));
    assert!(shortfall(&v1.cgroups, "no pressure").what_to_do.contains("mount"));
    shortfall(&v1.cgroups, "cgroup v1 tree");
    let off = plan(&recorded("debian-6.12-no-psi"));
    assert!(shortfall(&off.cgroups, "no pressure").what_to_do.contains("psi=1"));
    let part = plan(&recorded("debian-6.12-own-cgroup"));
    assert!(shortfall(&part.cgroups, "own part of the unified tree").what_to_do.contains("--cgroup-root"));
}

// What no host at hand is like: recorded facts with a change.

#[test]
fn raw_tracepoints_where_typed_ones_do_not_attach() {
    let mut facts = recorded("debian-6.12-v2");
    facts.trials.tp_btf = Trial::AttachFails("Operation not supported (os error 95)".into());
    let hook = |facts: &Facts| plan(facts).cpu.hook().map(|c| c.hook);
    assert_eq!(hook(&facts), Some(Hook::RawTracepoint));
    assert_eq!(plan(&facts).cgroups.hook().and_then(|c| c.tracepoints), Some(Hook::RawTracepoint));
    // They cannot do without the helper.
    facts.trials.read_kernel = Trial::LoadFails("Invalid argument (os error 22)".into());
    assert_eq!(hook(&facts), None);
    assert_eq!(plan(&facts).cgroups.hook().and_then(|c| c.tracepoints), None);
}

#[test]
fn a_kernel_without_scheduler_statistics_or_quotas() {
    let mut facts = recorded("debian-6.12-v2");
    facts.btf.rq_sched_info = false;
    assert!(shortfall(&plan(&facts).cpu, "moved to another CPU").what_to_do.contains("SCHEDSTATS"));
    facts.btf.sched_info = false;
    let without = plan(&facts);
    assert!(without.cpu.hook().is_some(), "{:?}", without.cpu);
    assert_eq!(without.cpu.shortfalls().len(), 1, "{:?}", without.cpu);
    shortfall(&without.cpu, "no run-queue wait");

    facts = recorded("debian-6.12-v2");
    facts.btf.throttled_clock_self_time = false;
    facts.btf.throttled_clock_pelt_time = false;
    assert_eq!(plan(&facts).cpu.hook().map(|c| c.throttle_clock), Some(ThrottleClock::None));
    facts.btf.throttled_clock_task_time = true;
    assert_eq!(plan(&facts).cpu.hook().map(|c| c.throttle_clock), Some(ThrottleClock::Scaled));
}

#[test]
fn what_a_birth_needs() {
    let mut facts = recorded("debian-6.12-v2");
    facts.btf.cgroup_tracepoints = false;
    assert_eq!(plan(&facts).births.hook().map(|b| b.triggered), Some(false));
    shortfall(&plan(&facts).births, "no cgroup tracepoints");
    facts.btf.io_accounting = false;
    shortfall(&plan(&facts).births, "no bytes");
    facts.trials.tp_btf = Trial::AttachFails("Operation not supported (os error 95)".into());
    assert_eq!(plan(&facts).births.hook().map(|b| b.entry), Some(Entry::RawTracepoint));
    facts.btf.sys_enter = false;
    assert!(matches!(plan(&facts).births, Verdict::Unavailable(_)));
    shortfall(&plan(&facts).births, "no sys_enter tracepoint");
    let mut facts = recorded("debian-6.12-v2");
    facts.trials.ring_buffer = Trial::LoadFails("Operation not permitted (os error 1)".into());
    assert!(shortfall(&plan(&facts).births, "os error 1").what_to_do.contains("security module"));
}

#[test]
fn refusal_without_a_known_cause_gives_the_error() {
    let mut facts = recorded("debian-6.12-v2");
    for trial in [&mut facts.trials.tp_btf, &mut facts.trials.raw_tracepoint, &mut facts.trials.read_kernel] {
        *trial = Trial::LoadFails("Operation not permitted (os error 1)".into());
    }
    let refused = plan(&facts);
    assert!(shortfall(&refused.cpu, "os error 1").what_to_do.contains("security module"));
    facts.privileges.seccomp = true;
    assert!(shortfall(&plan(&facts).cpu, "os error 1").what_to_do.contains("seccomp"));
    assert!(refused.runs(), "cgroup files remain");
}

#[test]
fn without_cgroup_trees_there_are_no_names_and_nothing_runs() {
    let mut facts = recorded("debian-6.12-v2");
    facts.cgroups.unified = None;
    let blind = plan(&facts);
    assert!(shortfall(&blind.cpu, "no names").what_to_do.contains("--cgroup-root"));
    assert!(matches!(blind.cgroups, Verdict::Unavailable(_)));
    assert!(!blind.runs(), "the scheduler's word about nobody");
    facts.privileges.capabilities.clear();
    facts.trials.tp_btf = Trial::LoadFails("Operation not permitted (os error 1)".into());
    facts.trials.raw_tracepoint = facts.trials.tp_btf.clone();
    assert!(!plan(&facts).runs());
}

#[test]
fn the_api_server() {
    let mut facts = recorded("debian-6.12-v2");
    assert!(matches!(plan(&facts).kubernetes, Verdict::Unavailable(_)));
    facts.kubernetes.configuration = Some(Configuration::ServiceAccount);
    facts.kubernetes.error = Some("connection refused".into());
    let down = plan(&facts).kubernetes;
    assert!(shortfall(&down, "connection refused").why.contains("container runtime alone"));
    facts.kubernetes.error = Some("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))".into());
    let own = plan(&facts).kubernetes;
    assert!(shortfall(&own, "CaUsedAsEndEntity").what_to_do.contains("CA:FALSE"));
    facts.kubernetes.error = None;
    facts.kubernetes.version = Some("v1.36.3".into());
    assert!(matches!(plan(&facts).kubernetes, Verdict::Working { .. }));
}

#[test]
fn locked_memory_matters_before_5_11_only() {
    let mut facts = recorded("debian-5.10-bpf-perfmon");
    assert!(plan(&facts).cpu.hook().is_none());
    facts.privileges.locked_memory = None;
    assert!(plan(&facts).cpu.hook().is_some());
    facts.privileges.locked_memory = Some(65536);
    facts.privileges.capabilities.push("SYS_RESOURCE".into());
    assert!(plan(&facts).cpu.hook().is_some());
    let new = recorded("debian-6.12-bpf-perfmon");
    assert!(new.privileges.locked_memory.is_some_and(|limit| limit < 32 << 20));
    assert!(plan(&new).cpu.hook().is_some());
}

#[test]
fn versions() {
    let mut kernel = recorded("debian-6.12-v2").kernel;
    for (release, expected) in [
        ("6.12.107+deb13-cloud-amd64", true),
        ("5.10.0-32-cloud-amd64", false),
        ("6.6.0-rc1", true),
        ("6.5.13-talos", false),
        ("7.3.4", true),
        ("odd", false),
    ] {
        kernel.release = release.to_string();
        assert_eq!(kernel.at_least(6, 6), expected, "{release}");
    }
}

/// A probe that is new asks for facts that no host recorded before has: such a host reads as one whose kernel lacks them.
#[test]
fn a_host_recorded_before_a_fact_was_asked_for_lacks_it() {
    let path = hosts().join("debian-6.12-v2.json");
    let mut host: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).expect("recorded")).expect("JSON");
    for (part, fact) in [("btf", "sys_enter"), ("trials", "iter_task")] {
        assert!(host[part].as_object_mut().expect("facts").remove(fact).is_some(), "{part}.{fact}");
    }
    let facts: Facts = serde_json::from_value(host.clone()).expect("facts");
    assert!(!facts.btf.sys_enter && !facts.trials.iter_task.works());
    assert!(matches!(plan(&facts).births, Verdict::Unavailable(_)));
    // What was written by a later program is no fact of this one's.
    host["btf"]["of_tomorrow"] = true.into();
    assert!(serde_json::from_value::<Facts>(host).is_err());
}
