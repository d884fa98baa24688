//! What a live view costs on a full node: figures, nothing passes or fails by them.
//! `cargo test --release --test budget top -- --ignored --nocapture --test-threads=1`

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::agent::Pods;
use crate::bed::kernel_gossip;
use crate::bed::measure::spent;
use crate::bed::pty::OnTerminal;

const SECOND: Duration = Duration::from_secs(1);

/// 1,000 cgroups, half of which run a little in every second: the view at 1 s, and what of it is the reading.
#[test]
#[ignore = "a measurement"]
fn cost_of_top_with_1000_cgroups() {
    let node = Pods::make(498, 1);
    let dir = tempfile::tempdir().expect("a directory");
    let visitor = node.visit(&dir.path().join("visit"));
    let record = dir.path().join("frames").display().to_string();
    for arguments in [&["top"][..], &["top", "--record", &record], &["agent", "--output", "none"]] {
        let mut command = kernel_gossip();
        command.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        let live = OnTerminal::start(&mut command, 200, 50);
        sleep(10 * SECOND);
        let (start, (before, _)) = (Instant::now(), spent(live.pid()));
        sleep(40 * SECOND);
        let (after, memory) = spent(live.pid());
        let share = (after - before) / start.elapsed().as_secs_f64() * 100.0;
        println!("{}: {share:.2} % of a core, {memory:.1} MiB resident", arguments.join(" "));
        println!("{}", live.screen().rows[0]);
    }
    drop(visitor);
}
