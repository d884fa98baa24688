//! docs/compatibility.md, row by row.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kernel_gossip::attribution::pods::PodIndex;
use kernel_gossip::attribution::{AttributionOptions, Attributor, Sample, Workload};
use kernel_gossip::kernel::{CgroupChange, CgroupKey, CgroupStat, Hierarchy, Reading, StatReading};
use kernel_gossip::sinks::ledger::Ledger;
use kernel_gossip::sinks::points;
use kernel_gossip::sinks::testdata::moment;

const UID: &str = "d341e8db-112f-4371-804f-3616d814d3d6";
const HASH: &str = "bf4eb23c48bbcc272d5dc8a1a460e91b";
/// Of no container of this machine.
const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
const SANDBOX: &str = "00000000000000000000000000000000000000000000000000000000000000bb";

fn filled(text: &str) -> String {
    let systemd = UID.replace('-', "_");
    let places =
        [("<uid>", UID), ("<u_i_d>", &systemd), ("<hash>", HASH), ("<id>", ID), ("<sandbox>", SANDBOX)];
    places.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attribution").join(name);
    fs::read_to_string(path).expect("recorded")
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, text).expect("written");
}

/// The runtime's files of the container and of its pod's sandbox.
fn files(dir: &Path, which: &str) {
    let tasks = dir.join("io.containerd.runtime.v2.task/k8s.io");
    let storage = dir.join("overlay-containers");
    let podman = |list: &str| {
        put(&storage.join(ID).join("userdata/config.json"), &fixture("podman-config.json"));
        let recorded = "4f24eb817b000e81b2f9d13ab15e0b813020a6d3ae5ef7f72a5cda28886f37fb";
        put(&storage.join(list), &fixture("podman-containers.json").replace(recorded, ID));
    };
    match which {
        "none" => {}
        "containerd" | "containerd, working" => {
            put(&tasks.join(ID).join("config.json"), &fixture("containerd-container.json"));
            put(&tasks.join(SANDBOX).join("config.json"), &fixture("containerd-sandbox.json"));
        }
        "CRI-O" => put(&storage.join(ID).join("userdata/config.json"), &fixture("crio-container.json")),
        "Docker" => put(&dir.join("containers").join(ID).join("config.v2.json"), &fixture("docker.json")),
        "cri-dockerd" => {
            put(
                &dir.join("containers").join(ID).join("config.v2.json"),
                &fixture("docker-k8s-container.json"),
            );
        }
        "Podman" => podman("containers.json"),
        "Podman, volatile" => podman("volatile-containers.json"),
        other => panic!("no files of {other}"),
    }
}

/// What becomes of a cgroup at `path` that has used so much CPU, ns.
fn attributed(dir: &Path, path: &str, used: u64) -> (Arc<Workload>, bool) {
    let options = AttributionOptions { runtime_roots: vec![dir.into()], ..AttributionOptions::default() };
    let mut attributor = Attributor::new(options);
    let cgroup = CgroupKey { hierarchy: Hierarchy::Unified, id: 1 };
    let stat = CgroupStat { cpu_usage: Some(used), ..CgroupStat::default() };
    let mut ledger = Ledger::new(moment(0), false);
    let mut who = None;
    // The ancestor that gives the identity has a cgroup, too.
    let paths: Vec<&str> = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).chain([path]).collect();
    for second in 1..3 {
        let mut reading = Reading { at: moment(second), ..Reading::default() };
        if second == 1 {
            let keys = (1..).zip(&paths).map(|(id, path)| (CgroupKey { id, ..cgroup }, path));
            reading.changes = keys
                .map(|(cgroup, path)| CgroupChange::Present { cgroup, path: (*path).to_owned() })
                .collect();
        }
        reading.stats = (1..=paths.len() as u64)
            .map(|id| StatReading { cgroup: CgroupKey { id, ..cgroup }, stat })
            .collect();
        let out = attributor.attribute(&reading, &PodIndex::default());
        ledger.observe(out);
        // The longest that holds it: the cgroup itself, or the one whose part it is.
        let holds = |s: &&Sample| path == s.who.cgroup || path.starts_with(&format!("{}/", s.who.cgroup));
        let sample = out.samples.iter().filter(holds).max_by_key(|s| s.who.cgroup.len());
        who = sample.map(|s| s.who.clone());
    }
    let who = who.expect("a workload");
    let published = ledger.accounts().iter().any(|account| account.who.cgroup == who.cgroup);
    (who, published)
}

#[test]
fn every_row_of_the_table_holds() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| runtime |"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() > 25, "{}", rows.len());
    for row in rows {
        let [what, path, from, called, kind, series] = row[..] else { panic!("{row:?}") };
        let dir = tempfile::tempdir().expect("a directory");
        files(dir.path(), from);
        let path = filled(path);
        // A pause container's whole life, or a second of work.
        let used = if from.ends_with("working") { 1_000_000_000 } else { 50_000_000 };
        let (who, published) = attributed(dir.path(), &path, used);
        let wanted = if called == "its path" { who.cgroup.clone() } else { filled(called) };
        assert_eq!((who.label(), points::kind(who.kind)), (wanted, kind), "{what}: {path}");
        assert_eq!(published, series == "yes", "{what}");
    }
}
