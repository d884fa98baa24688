use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::evidence::{
    CpuNumbers, HistoryPoint, MemoryNumbers, NeighbourShare, Severity, SignalEvidence, SignalKind, Source,
};

const MIB: i64 = 1 << 20;

/// What is advised where it is not known whether the node resizes pods in place.
fn recommend(evidence: &Evidence, cpu_cores: Option<f64>) -> Recommendation {
    crate::signals::kinds::recommend(evidence, NodeFacts { cpu_cores, resizes: None })
}

/// The command, where there is one.
fn command(r: &Recommendation) -> Option<&str> {
    assert!(r.commands.len() <= 1, "{:?}", r.commands);
    r.commands.first().map(|c| c.line.as_str())
}

fn owner(api_version: &str, kind: &str, name: &str) -> Owner {
    Owner { api_version: api_version.into(), kind: kind.into(), name: name.into() }
}

fn pod(container: ContainerFacts) -> PodFacts {
    PodFacts {
        namespace: "shop".into(),
        name: "web-5d9c-x7".into(),
        uid: "u".into(),
        node: "n".into(),
        owner: Some(owner("apps/v1", "ReplicaSet", "web-5d9c")),
        template_hash: Some("5d9c".into()),
        containers: vec![ContainerFacts { name: "app".into(), ..container }],
        ..PodFacts::default()
    }
}

fn evidence(kind: SignalKind, pod: PodFacts, numbers: SignalEvidence) -> Evidence {
    Evidence {
        pod: Arc::new(pod),
        container: "app".into(),
        kind,
        source: Source::Kernel,
        severity: Severity::Critical,
        active: true,
        since: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        numbers,
        history: Arc::from([]),
    }
}

/// Throttled at `limit` over 10 s: seconds throttled per CPU, cores used, periods throttled.
fn throttle(limit: f64, throttled: f64, usage: f64, periods: i64) -> Evidence {
    let cpu = CpuNumbers {
        throttled_percent: Some((throttled * 10.0).min(90.0)),
        throttled_seconds: Some(throttled),
        stalls: Some(periods),
        periods: Some(100),
        throttled_periods: Some(periods),
        usage_cores: Some(usage),
        demand_cores: Some(usage + throttled / 10.0),
        limit_cores: Some(limit),
        request_cores: Some(limit / 2.0),
        ..CpuNumbers::default()
    };
    let numbers = SignalEvidence { window_seconds: Some(10.0), cpu: Some(cpu), ..SignalEvidence::default() };
    let facts = ContainerFacts {
        cpu_limit_cores: Some(limit),
        cpu_request_cores: Some(limit / 2.0),
        ..Default::default()
    };
    evidence(SignalKind::CpuThrottle, pod(facts), numbers)
}

fn cpu(e: &mut Evidence) -> &mut CpuNumbers {
    e.numbers.cpu.as_mut().unwrap()
}

fn facts(e: &mut Evidence) -> &mut PodFacts {
    Arc::get_mut(&mut e.pod).unwrap()
}

/// Seconds with (used, throttled) seconds of CPU each, as cumulative points.
fn history(seconds: &[(f64, f64)]) -> Arc<[HistoryPoint]> {
    let (mut used, mut throttled) = (0.0, 0.0);
    std::iter::once(&(0.0, 0.0))
        .chain(seconds)
        .enumerate()
        .map(|(i, (u, t))| {
            used += u * 1e9;
            throttled += t * 1e9;
            HistoryPoint {
                unix_ns: 1_000_000_000 * (i as u64 + 1),
                cpu_usage_ns: used as u64,
                throttled_ns: throttled as u64,
                throttled_wall_ns: Some(throttled as u64),
            }
        })
        .collect()
}

/// Waiting 10 s behind neighbours: seconds waited, cores used, request.
fn contention(wait: f64, usage: f64, request: Option<f64>, neighbours: &[(&str, f64)]) -> Evidence {
    let numbers = SignalEvidence {
        window_seconds: Some(10.0),
        cpu: Some(CpuNumbers {
            wait_neighbour_seconds: Some(wait),
            usage_cores: Some(usage),
            ..CpuNumbers::default()
        }),
        neighbours: neighbours
            .iter()
            .map(|(name, percent)| NeighbourShare {
                name: (*name).into(),
                withheld: false,
                percent: *percent,
            })
            .collect(),
        ..SignalEvidence::default()
    };
    let facts = ContainerFacts { cpu_request_cores: request, ..Default::default() };
    evidence(SignalKind::CpuContention, pod(facts), numbers)
}

fn memory(limit: Option<i64>, numbers: MemoryNumbers) -> Evidence {
    let kind = if numbers.oom_kills.is_some() { SignalKind::OomKill } else { SignalKind::MemoryPressure };
    let numbers =
        SignalEvidence { window_seconds: Some(10.0), memory: Some(numbers), ..SignalEvidence::default() };
    let facts = ContainerFacts { memory_limit_bytes: limit, ..Default::default() };
    evidence(kind, pod(facts), numbers)
}

fn limit_of(r: &Recommendation) -> Option<f64> {
    r.to.as_ref().and_then(|to| to.cpu_limit_cores)
}

#[test]
fn throttled_limits() {
    // (what, evidence, node, kind, limit, in the text)
    let busy = throttle(0.2, 8.0, 0.2, 100);
    let mut four_threads = throttle(0.2, 36.0, 0.2, 100);
    cpu(&mut four_threads).throttled_percent = Some(90.0);
    // One thread that wants 0.1 s of CPU once a second: 4 periods throttled of each 10.
    let mut burst = throttle(0.2, 3.2, 0.1, 40);
    burst.history = history(&[(0.1, 0.32); 10]);
    // The same work under the kubelet's cpuCFSQuotaPeriod of 10 ms.
    let mut short_periods = throttle(0.2, 3.2, 0.1, 400);
    short_periods.history = history(&[(0.1, 0.32); 10]);
    (cpu(&mut short_periods).periods, cpu(&mut short_periods).period_seconds) = (Some(1000), Some(0.01));
    // Four threads that want 0.02 s each, at once, each second: 3 periods of each 10.
    let mut short_burst = throttle(0.2, 11.4, 0.08, 30);
    short_burst.history = history(&[(0.08, 1.14); 10]);
    // The mean hides two busy seconds.
    let mut uneven = throttle(1.0, 2.0, 0.4, 30);
    uneven.history = history(&[
        (1.0, 1.0),
        (1.0, 1.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
        (0.25, 0.0),
    ]);
    let slight = throttle(2.0, 0.1, 1.5, 50);
    // Nothing but a mean: neither periods nor history.
    let mut mean = throttle(1.0, 0.5, 0.3, 20);
    (cpu(&mut mean).throttled_periods, cpu(&mut mean).throttled_percent) = (None, Some(10.0));
    let mut guaranteed = throttle(0.5, 5.0, 0.5, 100);
    for c in &mut facts(&mut guaranteed).containers {
        c.cpu_request_cores = Some(0.5);
        (c.memory_limit_bytes, c.memory_request_bytes) = (Some(MIB), Some(MIB));
    }
    for (what, e, node, kind, limit, said) in [
        ("one busy thread", &busy, None, Kind::RaiseLimit, Some(0.8), "would have used at most 1.00"),
        (
            "on a node of 4",
            &busy,
            Some(4.0),
            Kind::RaiseLimit,
            Some(0.8),
            "A limit of 1200m meets its demand",
        ),
        (
            "more than four times",
            &four_threads,
            None,
            Kind::RaiseLimit,
            Some(0.8),
            "at most 4 times the limit",
        ),
        (
            "a burst of one thread",
            &burst,
            None,
            Kind::RaiseLimit,
            Some(0.8),
            "in the periods in which it was stopped (at most 1.00",
        ),
        (
            "a burst of one thread in short periods",
            &short_periods,
            None,
            Kind::RaiseLimit,
            Some(0.8),
            "in the periods in which it was stopped (at most 1.00",
        ),
        (
            "a burst of four",
            &short_burst,
            None,
            Kind::RaiseLimit,
            Some(0.8),
            "its largest burst in one period (at most 1.60",
        ),
        (
            "two busy seconds of ten",
            &uneven,
            None,
            Kind::RaiseLimit,
            Some(2.4),
            "in the busiest second (at most 2.00",
        ),
        ("a little", &slight, None, Kind::RaiseLimit, Some(2.5), "at most 2.02 cores"),
        ("the node is that small", &uneven, Some(2.0), Kind::DropLimit, None, "drop it"),
        (
            "it takes the whole node",
            &four_threads,
            Some(0.5),
            Kind::RaiseLimit,
            Some(0.5),
            "no more than the node has",
        ),
        ("its mean is below the limit", &mean, None, Kind::RaiseLimit, Some(1.1), "comes in bursts"),
        ("guaranteed keeps its class", &guaranteed, None, Kind::RaiseLimit, Some(1.2), "Guaranteed"),
    ] {
        let r = recommend(e, node);
        assert_eq!(r.kind, kind, "{what}: {}", r.text);
        assert_eq!(limit_of(&r), limit, "{what}: {}", r.text);
        assert!(r.text.contains(said), "{what}: {}", r.text);
        assert!(r.text.ends_with(command(&r).unwrap_or("?")), "{what}: {}", r.text);
    }
    let r = recommend(&guaranteed, None);
    assert_eq!(r.to.as_ref().unwrap().cpu_request_cores, Some(1.2));
    assert_eq!(
        command(&r).unwrap(),
        "kubectl -n shop set resources deployment/web -c app --limits=cpu=1200m --requests=cpu=1200m"
    );
    assert_eq!(
        command(&recommend(&uneven, Some(2.0))).unwrap(),
        r#"kubectl -n shop patch deployment/web -p '{"spec":{"template":{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":null}}}]}}}}'"#
    );
}

#[test]
fn no_advice_where_evidence_is_thin() {
    let edit = |change: &dyn Fn(&mut Evidence)| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        change(&mut e);
        e
    };
    for (e, said) in [
        (edit(&|e| e.source = Source::Reported), "reported by others"),
        (edit(&|e| e.numbers.cpu = None), "no CPU numbers"),
        (edit(&|e| e.numbers.window_seconds = Some(2.0)), "too short"),
        (edit(&|e| e.numbers.window_seconds = None), "too short"),
        (edit(&|e| cpu(e).limit_cores = None), "unknown"),
        (edit(&|e| cpu(e).usage_cores = None), "unknown"),
        (edit(&|e| cpu(e).throttled_seconds = None), "unknown"),
        (edit(&|e| cpu(e).stalls = Some(4)), "4 stalls"),
        (edit(&|e| cpu(e).throttled_percent = Some(0.4)), "0.4 %"),
        (edit(&|e| e.container.clear()), "as a whole"),
        (edit(&|e| facts(e).containers[0].cpu_limit_cores = None), "the container has none"),
        (edit(&|e| facts(e).containers[0].cpu_limit_cores = Some(1.0)), "not the container's own"),
        (edit(&|e| e.kind = SignalKind::NetworkIssue), "network_issue"),
        (contention(0.4, 0.1, None, &[]), "4.0 %"),
        (contention(8.0, 0.5, Some(2.0), &[("/system.slice/kubelet.service", 70.0)]), "no single pod"),
        (memory(None, MemoryNumbers::default()), "no memory limit"),
        (memory(Some(64 * MIB), MemoryNumbers::default()), "0 pages"),
        (
            memory(
                Some(64 * MIB),
                MemoryNumbers { refaults: Some(20), usage_bytes: Some(60 * MIB), ..Default::default() },
            ),
            "20 pages",
        ),
        (memory(Some(64 * MIB), MemoryNumbers { refaults: Some(9000), ..Default::default() }), "unknown"),
    ] {
        let r = recommend(&e, None);
        assert_eq!((r.kind, command(&r), &r.to), (Kind::None, None, &None), "{}", r.text);
        assert!(r.text.starts_with("No advice: ") && r.text.contains(said), "{said}: {}", r.text);
    }
    let r = recommend(&throttle(4.0, 20.0, 4.0, 100), Some(4.0));
    assert!(r.kind == Kind::None && r.text.contains("whole node's CPU"), "{}", r.text);
}

#[test]
fn contended_requests() {
    let crunch = ("batch/crunch-0/main", 63.0);
    for (what, e, node, kind, request, said) in [
        (
            "wants more than it requests",
            contention(8.0, 0.2, Some(0.4), &[crunch]),
            None,
            Kind::RaiseRequest,
            Some(1.2),
            "behind batch/crunch-0/main",
        ),
        (
            "no request at all",
            contention(8.0, 0.2, None, &[]),
            None,
            Kind::RaiseRequest,
            Some(1.2),
            "requests none",
        ),
        (
            "at most four times",
            contention(8.0, 0.05, Some(0.1), &[crunch]),
            None,
            Kind::RaiseRequest,
            Some(0.4),
            "400m",
        ),
        (
            "never below its use",
            contention(8.0, 0.7, Some(0.01), &[crunch]),
            None,
            Kind::RaiseRequest,
            Some(0.7),
            "700m",
        ),
        (
            "bounded by the node",
            contention(30.0, 1.0, Some(0.8), &[crunch]),
            Some(2.0),
            Kind::RaiseRequest,
            Some(2.0),
            "2",
        ),
        (
            "the neighbour is no pod",
            contention(8.0, 0.2, Some(0.4), &[("kubelet.service", 70.0)]),
            None,
            Kind::RaiseRequest,
            Some(1.2),
            "systemReserved",
        ),
        (
            "its request covers it",
            contention(8.0, 0.2, Some(1.5), &[crunch]),
            None,
            Kind::Spread,
            None,
            "podAntiAffinity",
        ),
    ] {
        let r = recommend(&e, node);
        assert_eq!(r.kind, kind, "{what}: {}", r.text);
        assert_eq!(r.to.as_ref().and_then(|to| to.cpu_request_cores), request, "{what}: {}", r.text);
        assert!(r.text.contains(said), "{what}: {}", r.text);
    }
    let spread = recommend(&contention(8.0, 0.2, Some(1.5), &[crunch]), None);
    assert_eq!(command(&spread).unwrap(), "kubectl -n batch get pod crunch-0 --show-labels");
    // An agent says who the neighbour is.
    for name in
        ["batch/crunch-0;id", "batch/$(id)/main", "--all/crunch-0", "batch/crunch-0/main/x", "a/b/c;d"]
    {
        let r = recommend(&contention(8.0, 0.2, Some(1.5), &[(name, 63.0)]), None);
        assert_eq!((r.kind, command(&r)), (Kind::None, None), "{name}: {}", r.text);
    }
    // Who it is may not be said: neither is it said that it is nobody, or no pod.
    for (request, kind) in [(0.4, Kind::RaiseRequest), (1.5, Kind::None)] {
        let mut e = contention(8.0, 0.2, Some(request), &[("another namespace", 63.0)]);
        e.numbers.neighbours[0].withheld = true;
        let r = recommend(&e, None);
        assert_eq!(r.kind, kind, "{}", r.text);
        assert!(r.text.contains("other namespaces, whose names are withheld"), "{}", r.text);
        assert!(!r.text.contains("no pod") && !r.text.contains("no single pod"), "{}", r.text);
    }
}

#[test]
fn memory_limits() {
    let oom = |peak, kills| MemoryNumbers {
        oom_kills: Some(kills),
        oom_peak_bytes: Some(peak),
        working_set_bytes: Some(30 * MIB),
        ..Default::default()
    };
    let thrash = |refaults| MemoryNumbers {
        working_set_bytes: Some(60 * MIB),
        refaults: Some(refaults),
        ..Default::default()
    };
    for (what, e, mebibytes, said) in [
        ("killed at its limit", memory(Some(64 * MIB), oom(62 * MIB, 1)), 80, "killed 1 of its tasks"),
        ("asked for more than the limit", memory(Some(64 * MIB), oom(100 * MIB, 2)), 128, "held 100 MiB"),
        ("at most four times", memory(Some(64 * MIB), oom(900 * MIB, 2)), 256, "killed 2"),
        ("reads back what it dropped", memory(Some(64 * MIB), thrash(5120)), 96, "read back 5120 pages"),
        ("the same pages again and again", memory(Some(64 * MIB), thrash(i64::MAX)), 144, "60 MiB"),
    ] {
        let r = recommend(&e, None);
        assert_eq!(r.kind, Kind::MemoryLimit, "{what}: {}", r.text);
        assert_eq!(r.to.as_ref().unwrap().memory_limit_bytes, Some(mebibytes * MIB), "{what}: {}", r.text);
        assert!(r.text.contains(said), "{what}: {}", r.text);
        assert_eq!(
            command(&r).unwrap(),
            format!("kubectl -n shop set resources deployment/web -c app --limits=memory={mebibytes}Mi")
        );
    }
}

#[test]
fn commands_by_owner() {
    let of_owner = |of: Option<(&str, &str, &str)>, hash: Option<&str>, config_hash: Option<&str>| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        let pod = facts(&mut e);
        pod.owner = of.map(|(version, kind, name)| owner(version, kind, name));
        pod.template_hash = hash.map(Into::into);
        pod.config_hash = config_hash.map(Into::into);
        command(&recommend(&e, None)).map(str::to_owned)
    };
    let set = |owner: &str| Some(format!("kubectl -n shop set resources {owner} -c app --limits=cpu=800m"));
    let resize = Some(
        r#"kubectl -n shop patch pod web-5d9c-x7 --subresource resize -p '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"800m"}}}]}}'"#
            .to_string(),
    );
    let apps = "apps/v1";
    assert_eq!(of_owner(Some((apps, "ReplicaSet", "web-5d9c")), Some("5d9c"), None), set("deployment/web"));
    assert_eq!(of_owner(Some((apps, "ReplicaSet", "web-5d9c")), None, None), set("replicaset/web-5d9c"));
    assert_eq!(of_owner(Some((apps, "StatefulSet", "db")), None, None), set("statefulset/db"));
    assert_eq!(of_owner(Some((apps, "DaemonSet", "log")), None, None), set("daemonset/log"));
    assert_eq!(
        of_owner(Some(("batch/v1", "Job", "crunch")), None, None),
        resize,
        "its template is immutable"
    );
    assert_eq!(of_owner(None, None, None), resize);
    assert_eq!(of_owner(Some(("v1", "Node", "n")), None, None), None);
    assert_eq!(of_owner(None, None, Some("0123")), None, "a static pod");
    // Whoever creates a pod chooses its owner. The first was seen on a cluster: what follows the semicolon ran.
    for (stranger, hash) in [
        ((apps, "Deployment", "web;echo PWNED #"), None),
        ((apps, "ReplicaSet", "web;echo PWNED #-5d9c"), Some("5d9c")),
        ((apps, "ReplicaSet", "-5d9c"), Some("5d9c")),
        ((apps, "StatefulSet", "$(id)"), None),
        ((apps, "DaemonSet", "--all"), None),
        ((apps, "Deployment", "web\nkubectl delete"), None),
        (("x.example/v1", "Deployment", "web"), None),
        (("extensions/v1beta1", "ReplicaSet", "web"), None),
        (("apps/v1", "Rollout", "web"), None),
    ] {
        assert_eq!(of_owner(Some(stranger), hash, None), resize, "{stranger:?}");
    }
}

#[test]
fn the_command_that_touches_the_least_comes_first_and_says_whom() {
    let commands = |resizes: Option<bool>, change: &dyn Fn(&mut PodFacts)| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        change(facts(&mut e));
        let r = crate::signals::kinds::recommend(&e, NodeFacts { cpu_cores: None, resizes });
        assert!(r.text.contains(" This is what one pod did in 10 s; "), "{}", r.text);
        let told: String = r.commands.iter().map(|c| format!("\n{}\n{}", c.effect, c.line)).collect();
        assert!(r.text.ends_with(&told), "{}", r.text);
        r.commands
            .into_iter()
            .map(|c| (c.effect, c.line.contains("--subresource resize")))
            .collect::<Vec<_>>()
    };
    let resize = |what: &str| (format!("This pod alone, until it is recreated, {what}:"), true);
    let roll = |owner: &str| (format!("Every pod of {owner}, each of them restarted:"), false);
    let alone = |pod: &mut PodFacts| pod.owner = None;
    let as_it_is = |_: &mut PodFacts| {};
    let quiet = resize("without a restart");
    assert_eq!(commands(Some(true), &as_it_is), [quiet.clone(), roll("deployment/web")]);
    assert_eq!(commands(Some(false), &as_it_is), [roll("deployment/web")]);
    assert_eq!(commands(None, &as_it_is), [roll("deployment/web")]);
    assert_eq!(commands(Some(true), &alone), std::slice::from_ref(&quiet));
    assert_eq!(commands(Some(false), &alone), []);
    assert_eq!(commands(None, &alone), [resize("without a restart; Kubernetes 1.33 or later")]);
    let restarts = |pod: &mut PodFacts| {
        pod.owner = None;
        pod.containers[0].cpu_resize_restarts = true;
    };
    assert_eq!(commands(Some(true), &restarts), [resize("its resizePolicy restarts the container")]);
    // A ReplicaSet of nobody's, and one that an Argo Rollout makes: to change its template changes no pod, and is undone.
    let bare = |pod: &mut PodFacts| pod.template_hash = None;
    let stay = "The pods that replicaset/web-5d9c makes from now on; those that run stay as they are:";
    assert_eq!(commands(Some(true), &bare), [quiet.clone(), (stay.to_owned(), false)]);
    let of_rollout = |pod: &mut PodFacts| {
        bare(pod);
        pod.template_is_made = true;
    };
    assert_eq!(commands(Some(true), &of_rollout), [quiet]);
}

#[test]
fn what_is_estimated_is_an_upper_bound() {
    // One thread that is moved between three CPUs: each of them counts as stopped until the end of the period.
    let mut moved = throttle(0.3, 20.0, 0.25, 100);
    (cpu(&mut moved).wait_seconds, cpu(&mut moved).wait_throttle_seconds) = (Some(7.5), Some(7.5));
    cpu(&mut moved).demand_cores = Some(1.0);
    let r = recommend(&moved, None);
    assert!(r.text.contains("would have used at most 1.00."), "{}", r.text);
    assert!(
        r.text.contains("(at most 1.05 cores)"),
        "0.3 and 7.5 s in 10 s of throttled periods: {}",
        r.text
    );
    // The agent knows the machine's CPUs.
    let mut two_cpus = throttle(0.2, 36.0, 0.2, 100);
    cpu(&mut two_cpus).demand_cores = Some(2.0);
    assert!(recommend(&two_cpus, None).text.contains("would have used at most 2.00."));
    assert!(!recommend(&two_cpus, Some(2.0)).text.contains("3.80"), "0.2 and 3.6, more than there is");
    // Sixteen threads queue behind one slice of a neighbour on one CPU: they lost the CPU for that long once.
    let mut queue = contention(16.0, 0.5, Some(0.2), &[("batch/crunch-0/main", 10.0)]);
    cpu(&mut queue).contended_seconds = Some(1.0);
    let r = recommend(&queue, None);
    assert!(r.text.starts_with("Waited 10 % of 10 s"), "{}", r.text);
    assert!(r.text.contains("would have used at most 0.60,"), "{}", r.text);
    // Fifty threads under a limit of 0.1 on two CPUs: 621 % and 6.3 cores on 0.1.0.
    let mut limited = contention(62.1, 0.1, Some(0.05), &[("batch/crunch-0/main", 100.0)]);
    cpu(&mut limited).limit_cores = Some(0.1);
    let r = recommend(&limited, Some(2.0));
    assert!(r.text.starts_with("Waited 100 % of 10 s"), "{}", r.text);
    assert!(r.text.contains("would have used at most 0.10,"), "{}", r.text);
}

#[test]
fn commands_by_kind_of_container() {
    let of_kind = |kind: ContainerKind, owned: bool| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        let pod = facts(&mut e);
        pod.containers[0].kind = kind;
        pod.owner = pod.owner.take().filter(|_| owned);
        command(&recommend(&e, None)).map(str::to_owned)
    };
    let resize = |list: &str| {
        Some(format!(
            r#"kubectl -n shop patch pod web-5d9c-x7 --subresource resize -p '{{"spec":{{"{list}":[{{"name":"app","resources":{{"limits":{{"cpu":"800m"}}}}}}]}}}}'"#
        ))
    };
    let set = Some("kubectl -n shop set resources deployment/web -c app --limits=cpu=800m".to_string());
    for (kind, owned, alone) in [
        (ContainerKind::Main, set.clone(), resize("containers")),
        (ContainerKind::Sidecar, set.clone(), resize("initContainers")),
        (ContainerKind::Init, set, None),
        (ContainerKind::Ephemeral, None, None),
    ] {
        assert_eq!((of_kind(kind, true), of_kind(kind, false)), (owned, alone), "{kind:?}");
    }
    // A limit to be dropped is dropped where the template has it.
    let mut e = throttle(1.5, 2.0, 0.1, 10);
    facts(&mut e).containers[0].kind = ContainerKind::Sidecar;
    let r = recommend(&e, Some(2.0));
    assert_eq!(r.kind, Kind::DropLimit, "{}", r.text);
    assert!(command(&r).unwrap().contains(r#"{"spec":{"template":{"spec":{"initContainers":["#));
}

#[test]
fn a_debug_container_takes_no_pod_its_class() {
    let class = |kind: ContainerKind| {
        let mut e = throttle(0.25, 8.0, 0.25, 100);
        let pod = facts(&mut e);
        let app = &mut pod.containers[0];
        (app.cpu_request_cores, app.memory_limit_bytes) = (app.cpu_limit_cores, Some(MIB));
        app.memory_request_bytes = app.memory_limit_bytes;
        pod.containers.push(ContainerFacts { name: "other".into(), kind, ..Default::default() });
        recommend(&e, None).text.contains("The pod is Guaranteed")
    };
    assert!(class(ContainerKind::Ephemeral));
    assert!(!class(ContainerKind::Init) && !class(ContainerKind::Sidecar) && !class(ContainerKind::Main));
}

#[test]
fn numbers_a_person_would_write() {
    for (from, to) in
        [(1.0, 10), (91.0, 100), (101.0, 150), (960.0, 1000), (1000.0, 1000), (1001.0, 1100), (4100.0, 4500)]
    {
        assert_eq!(round_up_milli(from), to, "{from}");
    }
}

/// The limit after the advice is taken: a dropped one leaves the node.
fn effective(r: &Recommendation, limit: f64, node: Option<f64>) -> f64 {
    match r.kind {
        Kind::RaiseLimit => limit_of(r).unwrap(),
        Kind::DropLimit => node.unwrap(),
        _ => limit,
    }
}

prop_compose! {
    fn seconds()(all in prop::collection::vec((0.0f64..2.0, 0.0f64..4.0), 0..30)) -> Arc<[HistoryPoint]> {
        history(&all)
    }
}

/// A name as people choose them, as Kubernetes takes them, or any text.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?",
        1 => "[a-z]{1,5}[;|&$`'\" \n#/\\\\]{1,2}[a-z-]{0,5}",
        1 => any::<String>(),
        1 => Just("--all".to_owned()),
    ]
}

/// What Kubernetes takes for a name, by RFC 1123 and not by the code at hand.
fn taken(s: &str, max: usize, dots: bool) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('-')
            && !p.ends_with('-')
            && p.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
    };
    s.len() <= max && if dots { s.split('.').all(part) } else { part(s) }
}

prop_compose! {
    fn strange_pod()(
        namespace in name(), pod in name(), container in name(),
        version in prop_oneof![4 => Just("apps/v1".to_owned()), 1 => name()],
        kind in prop_oneof![
            Just("ReplicaSet".to_owned()), Just("Deployment".to_owned()), Just("StatefulSet".to_owned()),
            Just("DaemonSet".to_owned()), name()
        ],
        owned in name(), hash in prop::option::of(name()), suffix in any::<bool>(), has_owner in any::<bool>(),
    ) -> PodFacts {
        let end = hash.as_ref().filter(|_| suffix).map(|hash| format!("-{hash}")).unwrap_or_default();
        PodFacts {
            namespace, name: pod,
            owner: has_owner.then(|| owner(&version, &kind, &format!("{owned}{end}"))),
            template_hash: hash,
            containers: vec![ContainerFacts {
                name: container, cpu_limit_cores: Some(0.2), cpu_request_cores: Some(0.1), ..Default::default()
            }],
            ..PodFacts::default()
        }
    }
}

proptest! {
    #[test]
    fn a_command_is_split_into_the_words_it_was_made_of(pod in strange_pod(), neighbour in name(), of in name()) {
        let container = pod.containers[0].name.clone();
        let named = taken(&pod.namespace, 63, false) && taken(&pod.name, 253, true) && taken(&container, 63, false);
        let strings = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();

        let mut e = throttle(0.2, 8.0, 0.2, 100);
        (e.pod, e.container) = (Arc::new(pod.clone()), container.clone());
        let r = recommend(&e, None);
        let template = pod.owner.as_ref().filter(|o| o.api_version == "apps/v1").and_then(|o| {
            let of_deployment = pod.template_hash.as_ref().and_then(|h| o.name.strip_suffix(&format!("-{h}")));
            let (kind, name) = match (o.kind.as_str(), of_deployment) {
                ("ReplicaSet", Some(deployment)) => ("deployment", deployment),
                ("ReplicaSet", None) => ("replicaset", &*o.name),
                ("Deployment", _) => ("deployment", &*o.name),
                ("StatefulSet", _) => ("statefulset", &*o.name),
                ("DaemonSet", _) => ("daemonset", &*o.name),
                _ => return None,
            };
            taken(name, 253, true).then(|| format!("{kind}/{name}"))
        });
        let expected = (named && !container.is_empty()).then(|| match &template {
            Some(template) => strings(&[
                "kubectl", "-n", &pod.namespace, "set", "resources", template, "-c", &container, "--limits=cpu=800m",
            ]),
            None => {
                let patch = serde_json::json!({"spec": {"containers": [
                    {"name": container, "resources": {"limits": {"cpu": "800m"}}}
                ]}});
                strings(&[
                    "kubectl", "-n", &pod.namespace, "patch", "pod", &pod.name, "--subresource", "resize", "-p",
                    &patch.to_string(),
                ])
            }
        });
        let words = command(&r).map(|line| shlex::split(line).expect("words"));
        prop_assert_eq!(words, expected, "{}", r.text);

        let whole = format!("{of}/{neighbour}/main");
        let r = recommend(&contention(8.0, 0.2, Some(1.5), &[(&whole, 63.0)]), None);
        let expected = (taken(&of, 63, false) && taken(&neighbour, 253, true))
            .then(|| strings(&["kubectl", "-n", &of, "get", "pod", &neighbour, "--show-labels"]));
        let words = command(&r).map(|line| shlex::split(line).expect("words"));
        prop_assert_eq!(words, expected, "{}", r.text);
    }

    #[test]
    fn more_demand_never_recommends_less(
        limit in 0.01f64..16.0, usage in 0.0f64..16.0, more_usage in 0.0f64..4.0,
        throttled in 0.0f64..60.0, more in 0.0f64..60.0, periods in 5i64..=100,
        percent in 1.0f64..=100.0, history in seconds(), node in prop::option::of(1.0f64..64.0),
    ) {
        let case = |throttled: f64, usage: f64| {
            let mut e = throttle(limit, throttled, usage, periods);
            cpu(&mut e).throttled_percent = Some(percent);
            e.history = history.clone();
            recommend(&e, node)
        };
        let low = case(throttled, usage);
        for high in [case(throttled + more, usage), case(throttled, usage + more_usage)] {
            prop_assert!(
                effective(&high, limit, node) >= effective(&low, limit, node) - 1e-9,
                "{} < {}", high.text, low.text
            );
        }
    }

    #[test]
    fn a_raise_is_bounded_and_above_use(
        limit in 0.01f64..64.0, share in 0.0f64..1.02, throttled in 0.0f64..600.0, periods in 5i64..=100,
        history in seconds(), node in prop::option::of(1.0f64..64.0),
    ) {
        let usage = (limit * share).min(node.unwrap_or(f64::MAX));
        let mut e = throttle(limit, throttled, usage, periods);
        e.history = history;
        let r = recommend(&e, node);
        if let Some(to) = limit_of(&r) {
            prop_assert!(to > limit - 1e-3, "{}", r.text);
            prop_assert!(to >= usage - 1e-3, "{}", r.text);
            prop_assert!(to <= (limit * MAX_FACTOR).max(limit + 0.06).max(limit * 1.1 + 0.5) + 1e-3, "{}", r.text);
            prop_assert!(to <= MAX_CORES, "{}", r.text);
            prop_assert!(node.is_none_or(|n| to <= n.max(limit) + 1e-3), "{}", r.text);
        }
        prop_assert!(r.text.chars().count() <= TEXT_MAX);
    }

    #[test]
    fn a_longer_wait_never_recommends_a_smaller_request(
        wait in 0.5f64..100.0, more in 0.0f64..100.0, usage in 0.0f64..8.0,
        request in prop::option::of(0.01f64..8.0), node in prop::option::of(1.0f64..64.0),
    ) {
        let asked = |wait| {
            let r = recommend(&contention(wait, usage, request, &[("a/b/c", wait * 9.0)]), node);
            r.to.and_then(|to| to.cpu_request_cores).or(request).unwrap_or(0.0)
        };
        prop_assert!(asked(wait + more) >= asked(wait) - 1e-9);
        let node = node.unwrap_or(f64::MAX);
        prop_assert!(asked(wait) >= usage.min(node) - 1e-3);
        if let Some(r) = request {
            prop_assert!(asked(wait) <= (r * MAX_FACTOR).max(usage * 1.2 + 0.6) + 1e-3);
        }
    }

    #[test]
    fn memory_grows_with_its_evidence_and_stays_bounded(
        limit in 16i64..4096, held in 1i64..8192, peak in 0i64..8192, more in 0i64..4096, refaults in 2000i64..10_000_000,
    ) {
        let asked = |held: i64, peak: i64, refaults| {
            let e = memory(Some(limit * MIB), MemoryNumbers {
                working_set_bytes: Some(held.min(limit) * MIB), refaults: Some(refaults),
                oom_peak_bytes: Some(peak * MIB), oom_kills: Some(1), ..Default::default()
            });
            recommend(&e, None).to.unwrap().memory_limit_bytes.unwrap() / MIB
        };
        let low = asked(held, peak, refaults);
        prop_assert!(asked(held + more, peak, refaults) >= low);
        prop_assert!(asked(held, peak + more, refaults) >= low);
        prop_assert!(asked(held, peak, refaults + more) >= low);
        prop_assert!(low > limit && low as f64 <= limit as f64 * MAX_FACTOR);
    }

    #[test]
    fn any_numbers_give_a_text(
        limit in any::<f64>(), throttled in any::<f64>(), usage in any::<f64>(), window in any::<f64>(), node in any::<Option<f64>>(),
        held in any::<i64>(), refaults in any::<i64>(),
    ) {
        let mut e = throttle(limit, throttled, usage, 100);
        e.numbers.window_seconds = Some(window);
        let r = recommend(&e, node);
        prop_assert!(!r.text.is_empty() && r.text.chars().count() <= TEXT_MAX);
        let mut e = memory(Some(held), MemoryNumbers { refaults: Some(refaults), usage_bytes: Some(held), ..Default::default() });
        e.numbers.window_seconds = Some(window);
        recommend(&e, node);
    }
}
