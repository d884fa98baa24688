//! Random scenarios: `KG_SEED` is that of the first, `KG_SCENARIOS` how many.

use crate::bed::cgroup::{Version, cpu_tree};
use crate::bed::emulated;
use crate::kernel::cpu::alone;
use crate::kernel::reference::compare::is_right;
use crate::kernel::reference::random::{Stage, scene};
use crate::kernel::reference::scene::cpus;

/// What can be played here.
pub fn stage() -> Stage {
    let tree = cpu_tree();
    Stage {
        cpus: cpus(),
        unified: tree.version == Version::V2,
        realtime_budgets: tree.mount.join("cpu.rt_runtime_us").exists(),
        realtime: true,
        deadline: true,
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.map(|value| value.parse().unwrap_or_else(|e| panic!("{name}={value}: {e}")))
}

#[test]
fn random_scenarios_are_counted_right() {
    let _alone = alone();
    let first = from_environment("KG_SEED").unwrap_or_else(rand::random);
    let count = from_environment("KG_SCENARIOS").unwrap_or(if emulated() { 3 } else { 12 });
    let mut wrong = Vec::new();
    for seed in (0..count).map(|i| first.wrapping_add(i)) {
        let scene = scene(seed, stage());
        println!("KG_SEED={seed} KG_SCENARIOS=1: {scene}");
        // All of them are played: how many are wrong says more than which was first.
        if !is_right(&format!("KG_SEED={seed}"), &scene) {
            wrong.push(seed);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} scenarios are wrong, KG_SEED= {wrong:?} (KG_SCENARIOS=1)",
        wrong.len()
    );
}
