//! Attribution of readings made up here: what its tests share.

mod names;
mod numbers;

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
