use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use proptest::prelude::*;

use super::super::pods::{ContainerRecord, PodRecord, PodSet};
use super::super::{ROOT, WorkloadKind};
use super::*;
use crate::kernel::{
    Blame, CgroupChange, CgroupKey, CgroupStat, CpuReading, Instant as At, Loss, ProgramCost, StatReading,
};

const SECOND: u64 = 1_000_000_000;
const UID: &str = "d341e8db-112f-4371-804f-3616d814d3d6";
const HASH: &str = "bf4eb23c48bbcc272d5dc8a1a460e91b";
/// Of no container of this machine.
const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
const SANDBOX: &str = "00000000000000000000000000000000000000000000000000000000000000bb";

fn v1(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::V1Cpu, id }
}

fn v2(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id }
}

fn pod_path(pod: &str) -> String {
    format!("/kubepods/burstable/pod{pod}")
}

/// A reading a second, put together by the test.
struct Bench {
    attributor: Attributor,
    reading: Reading,
    pods: PodIndex,
}

impl Bench {
    fn new() -> Self {
        Self::with(AttributionOptions { read_bundles: false, ..AttributionOptions::default() })
    }

    fn with(options: AttributionOptions) -> Self {
        let attributor = Attributor::new(options);
        Bench { attributor, reading: Reading::default(), pods: PodIndex::default() }
    }

    fn present(&mut self, cgroup: CgroupKey, path: &str) -> &mut Self {
        self.reading.changes.push(CgroupChange::Present { cgroup, path: path.into() });
        self
    }

    fn gone(&mut self, cgroup: CgroupKey) -> &mut Self {
        self.reading.changes.push(CgroupChange::Gone { cgroup });
        self
    }

    fn cpu(&mut self, cgroup: CgroupKey, run: u64) -> &mut Self {
        let counters =
            CpuCounters { run, switches: run, wait: run, neighbour: run, ..CpuCounters::default() };
        self.reading.cpu.push(CpuReading { cgroup, counters });
        self
    }

    fn stat(&mut self, cgroup: CgroupKey, stat: CgroupStat) -> &mut Self {
        self.reading.stats.push(StatReading { cgroup, stat });
        self
    }

    fn blame(&mut self, victim: CgroupKey, culprit: CgroupKey, ns: u64) -> &mut Self {
        self.reading.blame.push(Blame { victim, culprit, ns, table: true });
        self
    }

    /// Attributes the reading and clears it for the next, a second later.
    fn read(&mut self) -> &Attributed {
        let now = self.reading.at.mono_ns + SECOND;
        self.reading.at = At { mono_ns: now, unix_ns: now };
        let out = self.attributor.attribute(&self.reading, &self.pods);
        self.reading = Reading { at: self.reading.at, ..Reading::default() };
        out
    }

    fn sample(&mut self, path: &str) -> Option<Sample> {
        self.read().samples.iter().find(|s| s.who.cgroup == path).cloned()
    }

    fn who(&self, path: &str) -> Arc<Workload> {
        self.attributor.current(path).expect("known")
    }

    fn tell(&mut self, set: &mut PodSet) {
        self.pods = set.publish(Instant::now()).expect("a change");
    }
}

fn record(uid: &str, container: Option<&str>) -> PodRecord {
    PodRecord {
        namespace: "shop".into(),
        name: "web-5d9c-x".into(),
        uid: uid.into(),
        config_hash: None,
        owner: Some(("ReplicaSet".into(), "web-5d9c".into())),
        containers: vec![ContainerRecord {
            name: "web".into(),
            ids: [container.map(String::from), None],
            cpu_limit: Some(0.2),
            cpu_request: Some(0.1),
            ..ContainerRecord::default()
        }],
        ..PodRecord::default()
    }
}

/// A containerd state directory with the bundles of a container and its sandbox.
fn runtime() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (id, kind) in [(ID, "container"), (SANDBOX, "sandbox")] {
        let bundle = dir.path().join("io.containerd.runtime.v2.task/k8s.io").join(id);
        fs::create_dir_all(&bundle).expect("made");
        let fixture = format!("tests/fixtures/attribution/containerd-{kind}.json");
        fs::copy(fixture, bundle.join("config.json")).expect("copied");
    }
    dir
}

#[test]
fn the_runtime_names_container_sandbox_and_pod_and_the_api_the_rest() {
    let dir = runtime();
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    let pod = pod_path(UID);
    let (container, sandbox, other) =
        (format!("{pod}/{ID}"), format!("{pod}/{SANDBOX}"), format!("{pod}/{}", "c".repeat(64)));
    bench
        .present(v1(1), &container)
        .present(v1(2), &pod)
        .present(v1(3), &sandbox)
        .present(v1(4), &other)
        .read();
    let who = bench.who(&container);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Container, "kg-attr/burn/burn"));
    assert_eq!((who.pod_uid.as_deref(), who.container_id.as_deref()), (Some(UID), Some(ID)));
    assert_eq!((who.confirmed, who.cpu_limit, who.owner.as_ref()), (false, None, None));
    let who = bench.who(&sandbox);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Sandbox, "kg-attr/burn"));
    let who = bench.who(&pod);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Pod, "kg-attr/burn"));
    let who = bench.who(&other);
    assert_eq!(
        (who.label().as_str(), who.container.as_deref()),
        ("kg-attr/burn", None),
        "named by its siblings"
    );

    // The API server's word, when it comes: the same names here, and limits and owner.
    let mut set = PodSet::default();
    set.apply(PodRecord { namespace: "kg-attr".into(), name: "burn".into(), ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    let who = bench.who(&container);
    assert_eq!(who.label(), "kg-attr/burn/web", "the API knows the container by its id");
    assert_eq!((who.confirmed, who.cpu_limit, who.cpu_request), (true, Some(0.2), Some(0.1)));
    assert_eq!(who.owner, Some(("ReplicaSet".into(), "web-5d9c".into())));
    let who = bench.who(&sandbox);
    assert_eq!((who.kind, who.confirmed, who.container.as_deref()), (WorkloadKind::Sandbox, true, None));
}

#[test]
fn a_kata_sandbox_is_where_the_containers_run() {
    let dir = runtime();
    let options = AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() };
    let mut bench = Bench::with(options);
    let path = format!("{}/kata_{SANDBOX}", pod_path(UID));
    bench.present(v1(1), &path).read();
    let who = bench.who(&path);
    assert_eq!((who.kind, who.label().as_str()), (WorkloadKind::Container, "kg-attr/burn"));
}

#[test]
fn without_a_runtime_the_api_names_late_and_for_good() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    bench.present(v2(1), &path).read();
    assert_eq!(bench.who(&path).label(), path, "nothing but the path is known");
    assert_eq!(bench.who(&path).pod_uid.as_deref(), Some(UID));
    let mut set = PodSet::default();
    set.apply(record(UID, None));
    bench.tell(&mut set);
    bench.read();
    assert_eq!((bench.who(&path).label().as_str(), bench.who(&path).confirmed), ("shop/web-5d9c-x", true));
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.read();
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
    // The pod is deleted, and long forgotten by the API's index, while the container ends.
    bench.pods = PodSet::default().publish(Instant::now()).unwrap_or_default();
    bench.gone(v2(1)).read();
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
}

#[test]
fn a_static_pod_has_the_apis_uid_once_that_is_known() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(HASH));
    bench.present(v2(1), &path).read();
    assert_eq!(bench.who(&path).pod_uid, None);
    let mut set = PodSet::default();
    set.apply(PodRecord { config_hash: Some(HASH.into()), ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    assert_eq!(bench.who(&path).pod_uid.as_deref(), Some(UID));
    assert_eq!(bench.who(&path).label(), "shop/web-5d9c-x/web");
}

#[test]
fn a_container_outside_its_pod_is_found_by_its_id() {
    let mut bench = Bench::new();
    let path = format!("/system.slice/cri-containerd-{ID}.scope");
    let mut set = PodSet::default();
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.present(v2(1), &path).read();
    assert_eq!(
        (bench.who(&path).label().as_str(), bench.who(&path).pod_uid.as_deref()),
        ("shop/web-5d9c-x/web", Some(UID))
    );
}

#[test]
fn a_late_bundle_is_waited_for_but_not_for_ever() {
    let dir = runtime();
    let bundle = dir.path().join("io.containerd.runtime.v2.task/k8s.io").join(ID).join("config.json");
    let text = fs::read(&bundle).expect("read");
    fs::remove_file(&bundle).expect("removed");
    let options = AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() };
    let mut bench = Bench::with(options.clone());
    let path = format!("{}/{ID}", pod_path(UID));
    bench.present(v1(1), &path).read();
    bench.read();
    assert_eq!(bench.who(&path).label(), path);
    fs::write(&bundle, &text[..100]).expect("written");
    bench.read();
    fs::write(&bundle, &text).expect("written");
    for _ in 0..5 {
        bench.read();
    }
    assert_eq!(bench.who(&path).label(), "kg-attr/burn/burn");
    assert_eq!(bench.read().attribution.bundles_missed, 0);

    fs::remove_file(&bundle).expect("removed");
    let mut bench = Bench::with(options);
    bench.present(v1(1), &path);
    for _ in 0..60 {
        bench.read();
    }
    assert_eq!((bench.read().attribution.bundles_missed, bench.attributor.asking.len()), (1, 0));
}

#[test]
fn nothing_new_keeps_the_same_workload() {
    let mut bench = Bench::new();
    let path = format!("{}/{ID}", pod_path(UID));
    let mut set = PodSet::default();
    set.apply(record(UID, Some(ID)));
    bench.tell(&mut set);
    bench.present(v1(1), &path).read();
    let first = bench.who(&path);
    set.apply(record("another", None));
    bench.tell(&mut set);
    bench.present(v1(2), "/x.service").cpu(v1(1), 5).read();
    assert!(Arc::ptr_eq(&first, &bench.who(&path)));
    let mut sidecar = record(UID, Some(ID));
    sidecar.containers.push(ContainerRecord { name: "sidecar".into(), ..ContainerRecord::default() });
    set.apply(sidecar);
    bench.tell(&mut set);
    bench.read();
    assert!(Arc::ptr_eq(&first, &bench.who(&path)), "news of the pod, not of the container");
    // And whoever comes later learns what was known before.
    let later = format!("{}/{SANDBOX}", pod_path(UID));
    bench.present(v1(3), &later).read();
    assert_eq!(bench.who(&later).label(), "shop/web-5d9c-x");
    set.apply(PodRecord { owner: None, ..record(UID, Some(ID)) });
    bench.tell(&mut set);
    bench.read();
    assert!(!Arc::ptr_eq(&first, &bench.who(&path)));
}

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
fn a_unit_started_again_is_another() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/a.service").cpu(v1(1), 100).read();
    bench.gone(v1(1)).present(v1(2), "/a.service").cpu(v1(1), 110).cpu(v1(2), 1);
    let out = bench.read();
    let samples: Vec<_> = out.samples.iter().map(|s| (s.cpu.map(|c| c.run), s.last)).collect();
    assert_eq!(samples, [(Some(110), true)], "one sample a path: the old one's last");
    let sample = bench.cpu(v1(2), 2).sample("/a.service").expect("a sample");
    assert_eq!((sample.cpu.map(|c| c.run), sample.last), (Some(2), false));
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
fn what_cannot_be_resolved_is_counted() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/kubepods/podX/y").cpu(v1(7), 1).stat(v1(8), CgroupStat::default()).blame(
        v1(1),
        v1(9),
        1,
    );
    let losses = bench.read().attribution;
    assert_eq!((losses.unresolved_ids, losses.unknown_shapes, losses.pods_known), (3, 2, 0));
    assert_eq!(bench.attributor.unknown_shapes().examples, ["/kubepods/podX", "/kubepods/podX/y"]);
    // The kernel goes on to tell of them, each reading: each is counted once.
    for s in 0..3 {
        bench.cpu(v1(7), 1).stat(v1(8), CgroupStat::default()).blame(v1(9), v1(7), 1).blame(v1(1), v1(9), 2);
        assert_eq!(bench.read().attribution.unresolved_ids, 3, "after {s} s more");
    }
    // Known at last: what it had is not lost.
    let sample = bench.present(v1(7), "/x.service").cpu(v1(7), 4).sample("/x.service").expect("a sample");
    assert_eq!(sample.cpu.map(|c| c.run), Some(4));
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

/// A container of Docker as its runtime's files name it.
fn docker(dir: &std::path::Path, name: &str) {
    let bundle = dir.join("containers").join(ID);
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.v2.json"), format!(r#"{{"Name":"/{name}","Config":{{}}}}"#))
        .expect("written");
}

#[test]
fn a_container_that_is_renamed_has_its_new_name_within_a_minute() {
    let dir = tempfile::tempdir().expect("a directory");
    docker(dir.path(), "one");
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    let path = format!("/docker/{ID}");
    bench.present(v1(1), &path).read();
    assert_eq!(bench.who(&path).label(), "one");
    docker(dir.path(), "two");
    bench.read();
    assert_eq!(bench.who(&path).label(), "one", "its file is not read each second");
    (0..60).for_each(|_| _ = bench.read());
    assert_eq!(bench.who(&path).label(), "two");
    // One that is gone keeps the last name it had.
    fs::remove_dir_all(dir.path().join("containers")).expect("removed");
    (0..120).for_each(|_| _ = bench.read());
    assert_eq!(bench.who(&path).label(), "two");
    assert_eq!(bench.read().attribution.bundles_missed, 0);
}

#[test]
fn a_container_that_nothing_names_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = dir.path().join("overlay-containers").join(ID).join("userdata");
    fs::create_dir_all(&bundle).expect("made");
    fs::write(bundle.join("config.json"), r#"{"annotations":{}}"#).expect("written");
    let mut bench =
        Bench::with(AttributionOptions { runtime_roots: vec![dir.path().into()], ..Default::default() });
    bench.present(v1(1), &format!("/machine.slice/libpod-{ID}.scope"));
    assert_eq!(bench.read().attribution.bundles_missed, 1);
    assert_eq!(bench.read().attribution.bundles_missed, 1);
}

#[test]
fn the_root_cgroup_is_called_what_it_is() {
    let mut bench = Bench::new();
    bench.present(v1(1), "/").read();
    let label = bench.who("/").label();
    assert!(label.contains("root cgroup") && !label.contains('/'), "{label}");
}
