//! How much is advised: limits and requests, for evidence as it is met.

use super::*;

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
fn numbers_a_person_would_write() {
    for (from, to) in
        [(1.0, 10), (91.0, 100), (101.0, 150), (960.0, 1000), (1000.0, 1000), (1001.0, 1100), (4100.0, 4500)]
    {
        assert_eq!(round_up_milli(from), to, "{from}");
    }
}
