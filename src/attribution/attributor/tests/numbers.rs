//! What is added up of whom, and until when.

use super::*;

#[test]
fn nested_cgroups_and_slots_add_up_and_the_dead_stay_in_the_sum() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    bench.present(v1(2), &format!("{path}/init.scope")).present(v1(1), &path).present(v2(9), &path);
    let run = |bench: &mut Bench| bench.sample(&path).and_then(|s| s.cpu).map(|c| c.run);
    assert_eq!(run(&mut bench), None, "the probe has not seen it");
    assert_eq!(run(bench.cpu(v1(1), 10).cpu(v1(2), 5)), Some(15));
    assert_eq!(run(bench.cpu(v1(1), 11).cpu(v1(2), 4).cpu(v1(2), 3)), Some(18), "two slots of one cgroup");
    assert_eq!(run(bench.gone(v1(2)).cpu(v1(1), 12).cpu(v1(2), 8)), Some(20));
    assert_eq!(run(bench.cpu(v1(1), 13)), Some(21));
    let samples = bench.cpu(v1(1), 13).read();
    assert_eq!(samples.samples.len(), 1, "what lies below the container is the container");
}

#[test]
fn stat_and_quota_are_of_the_own_cgroup_and_its_ancestors() {
    let mut bench = Bench::new();
    let pod = pod_path(UID);
    let path = format!("{pod}/{ID}");
    bench
        .present(v1(1), &path)
        .present(v2(11), &path)
        .present(v1(2), &pod)
        .present(v1(3), &format!("{path}/sub"));
    let limited = |cores: u64| CgroupStat {
        quota: Some(cores * 100),
        period: Some(100),
        throttled: Some(cores),
        ..CgroupStat::default()
    };
    let psi = CgroupStat {
        cpu_pressure: Some(crate::kernel::Pressure { some: 6, full: None }),
        ..CgroupStat::default()
    };
    bench.stat(v1(1), limited(3)).stat(v2(11), psi).stat(v1(2), limited(2)).stat(v1(3), limited(1));
    let sample = bench.sample(&path).expect("a sample");
    assert_eq!(sample.quota_cores, Some(2.0), "the pod's binds");
    assert_eq!((sample.stat.throttled, sample.stat.cpu_pressure), (Some(3), psi.cpu_pressure));
    // The pod's limit is lifted; the unified tree, which has no quota here, does not speak for it.
    bench.stat(v1(1), limited(3)).stat(v2(11), psi).stat(v1(2), CgroupStat::default());
    let out = bench.read();
    let of = |kind| out.samples.iter().find(|s| s.who.kind == kind).expect("a sample");
    assert_eq!(of(WorkloadKind::Container).quota_cores, Some(3.0));
    assert_eq!((of(WorkloadKind::Pod).quota_cores, of(WorkloadKind::Pod).cpu), (None, None));
    let sample = bench.sample(&path).expect("a sample");
    assert_eq!(sample.stat, CgroupStat::default(), "not read is not known");
}

#[test]
fn the_last_sample_comes_once_and_has_the_last_numbers() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/a.service").cpu(v1(1), 10).read();
    // Its last counters come with the news of its death, or later.
    let stat = CgroupStat { cpu_usage: Some(7), ..CgroupStat::default() };
    let sample = bench.gone(v1(1)).cpu(v1(1), 12).stat(v1(1), stat).sample("/a.service").expect("a sample");
    assert!(!sample.last);
    let sample = bench.cpu(v1(1), 13).sample("/a.service").expect("a sample");
    assert!(!sample.last);
    let sample = bench.sample("/a.service").expect("a sample");
    assert_eq!((sample.last, sample.cpu.map(|c| c.run), sample.stat), (true, Some(13), stat));
    assert!(bench.cpu(v1(1), 14).sample("/a.service").is_none());
    assert!(bench.who("/a.service").unit.is_some(), "still known");
    // One that is read for ever ends all the same.
    bench.present(v1(2), "/b.service").cpu(v1(2), 1).read();
    bench.gone(v1(2));
    let lasts = (0..10).filter(|_| bench.cpu(v1(2), 1).sample("/b.service").is_some_and(|s| s.last)).count();
    assert_eq!(lasts, 1);
}

#[test]
fn blame_is_of_workloads() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    bench
        .present(v1(1), &path)
        .present(v1(2), &format!("{path}/sub"))
        .present(v1(3), "/b.service")
        .present(v1(4), "/");
    bench.read();
    let named = |out: &Attributed| {
        let mut all: Vec<_> =
            out.blame.iter().map(|b| (b.victim.cgroup.clone(), b.culprit.label(), b.ns)).collect();
        all.sort();
        all
    };
    let out = bench
        .blame(v1(1), v1(3), 10)
        .blame(v1(2), v1(3), 5)
        .blame(v1(2), v1(3), 1)
        .blame(v1(3), v1(4), 2)
        .read();
    let service = "/b.service".to_string();
    assert_eq!(named(out), [(service.clone(), ROOT.into(), 2), (path.clone(), "b.service".into(), 16)]);
    // The nested cgroup dies and its rows go; the sum stays, and grows with the rest.
    bench.gone(v1(2)).blame(v1(1), v1(3), 13).read();
    let out = bench.read();
    assert_eq!(named(out), [(service.clone(), ROOT.into(), 2), (path.clone(), "b.service".into(), 19)]);
    // One cgroup of the container kept another waiting.
    bench.cpu(v1(1), 100).blame(v1(1), v1(2), 30);
    let cpu = bench.sample(&path).and_then(|s| s.cpu).expect("counters");
    assert_eq!((cpu.neighbour, cpu.own), (70, 30));
    // The victim ends, and with it what was done to it; the culprit's name outlives it.
    bench.gone(v1(3)).read();
    let out = bench.read();
    assert_eq!(named(out), [(path, "b.service".into(), 19)]);
}

#[test]
fn root_and_program_costs_pass_through() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/");
    let costs =
        |runs| ["a", "b"].map(|name| ProgramCost { name: name.into(), runs, ..Default::default() }).to_vec();
    bench.reading.programs = costs(1);
    let lost = [Loss::new("slots_exhausted").lost(3)];
    bench.reading.losses = lost.to_vec();
    let out = bench.read();
    assert_eq!((out.programs.clone(), out.losses.clone()), (costs(1), lost.to_vec()));
    assert_eq!(out.samples.iter().map(|s| s.who.kind).collect::<Vec<_>>(), [WorkloadKind::Root]);
    bench.reading.programs = costs(2)[1..].to_vec();
    assert_eq!(bench.read().programs, costs(2)[1..]);
}

#[test]
fn the_forgotten_leave_nothing_behind() {
    let memory = Memory { dead_for: std::time::Duration::from_secs(5), ..Memory::default() };
    let mut bench = Bench::with(AttributionOptions { read_bundles: false, memory, ..Default::default() });
    bench
        .present(v1(1), "/a.service")
        .present(v1(2), "/b.service")
        .blame(v1(1), v1(2), 5)
        .blame(v1(2), v1(1), 5)
        .read();
    bench.gone(v1(1)).gone(v1(2));
    for _ in 0..10 {
        bench.read();
    }
    let a = &bench.attributor;
    assert_eq!((a.pairs.len(), a.blame.len(), a.workloads.iter().flatten().count()), (0, 0, 0));
    // Their places are used again, from zero.
    bench.present(v1(3), "/c.service").cpu(v1(3), 1).read();
    let sample = bench.cpu(v1(3), 2).sample("/c.service").expect("a sample");
    assert_eq!(sample.cpu.map(|c| c.run), Some(2));
}

#[derive(Clone, Debug)]
enum Step {
    Make(usize),
    Remove(usize),
    Run(usize, u64),
    Read,
}

const PATHS: [&str; 5] = ["/", "/a.service", "/a.service/sub", "/a.service/sub/x", "/b"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..PATHS.len()).prop_map(Step::Make),
        (0..PATHS.len()).prop_map(Step::Remove),
        (0..PATHS.len(), 0..100u64).prop_map(|(at, n)| Step::Run(at, n)),
        Just(Step::Read),
    ]
}

proptest! {
    /// Whatever comes and goes: every workload has exactly one last sample, a path at most one sample in
    /// a reading, sums never go down, and all that ran is in the sums.
    #[test]
    fn sums_grow_and_every_life_ends_once(steps in prop::collection::vec(step(), 0..120)) {
        let mut bench = Bench::new();
        let mut alive: [Option<(CgroupKey, u64)>; PATHS.len()] = [None; PATHS.len()];
        let (mut next, mut ran, mut ended) = (1, 0, 0);
        let mut sums: HashMap<String, u64> = HashMap::new();
        let mut reads = 0;
        let mut all = steps;
        all.extend((0..PATHS.len()).map(Step::Remove).chain([const { Step::Read }; 6]));
        for step in all {
            match step {
                Step::Make(at) if alive[at].is_none() => {
                    alive[at] = Some((v1(next), 0));
                    bench.present(v1(next), PATHS[at]);
                    next += 1;
                }
                // The kernel removes no cgroup that has children.
                Step::Remove(at) => for below in (0..PATHS.len()).rev() {
                    if PATHS[below].starts_with(PATHS[at]) && let Some((key, n)) = alive[below].take() {
                        bench.cpu(key, n).gone(key);
                    }
                },
                Step::Run(at, n) => if let Some((_, sum)) = &mut alive[at] {
                    *sum += n;
                    ran += n;
                },
                Step::Read => {
                    for (key, n) in alive.iter().flatten() {
                        bench.cpu(*key, *n);
                    }
                    reads += 1;
                    let out = bench.read();
                    let mut seen = std::collections::HashSet::new();
                    for sample in &out.samples {
                        // Two that died within one reading, one after the other at one place, both end in it.
                        let first = seen.insert(sample.who.cgroup.clone());
                        prop_assert!(first || sample.last, "{} twice in reading {}", sample.who.cgroup, reads);
                        let run = sample.cpu.map_or(0, |c| c.run);
                        let before = sums.insert(sample.who.cgroup.clone(), run).unwrap_or(0);
                        prop_assert!(run >= before, "{}: {} after {}", sample.who.cgroup, run, before);
                        if sample.last {
                            ended += sums.remove(&sample.who.cgroup).unwrap_or(0);
                        }
                    }
                }
                Step::Make(_) => {}
            }
        }
        prop_assert!(sums.is_empty(), "never ended: {sums:?}");
        prop_assert_eq!(ended, ran);
    }
}

/// A v1 cgroup that is renamed (`mv` of its directory) is the same cgroup: what it had stays with its old name, what it
/// gets goes to the new one.
#[test]
fn a_renamed_cgroup_changes_its_name_and_counts_nothing_twice() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/r1").present(v1(9), "/other").cpu(v1(1), 5000).blame(v1(1), v1(9), 1000).read();
    let run = |sample: &Sample| sample.cpu.map(|c| c.run);
    bench.present(v1(1), "/r2").cpu(v1(1), 5600).blame(v1(1), v1(9), 1200);
    let out = bench.read();
    let of = |path: &str| out.samples.iter().find(|s| s.who.cgroup == path).expect("a sample");
    assert_eq!((run(of("/r1")), of("/r1").last), (Some(5000), true));
    assert_eq!((run(of("/r2")), of("/r2").last), (Some(600), false));
    let blamed: Vec<_> = out.blame.iter().map(|b| (b.victim.cgroup.as_str(), b.ns)).collect();
    assert!(blamed.contains(&("/r2", 200)), "{blamed:?}");
    let sample = bench.cpu(v1(1), 6000).sample("/r2").expect("a sample");
    assert_eq!(run(&sample), Some(1000));
    assert!(bench.attributor.current("/r1").is_none());
}
