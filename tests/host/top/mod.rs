//! `kernel-gossip top` as a user runs it: what it says against the kernel's own files, on a terminal, recorded and replayed.

mod said;
mod screens;
mod terminal;

use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::bed::cgroup::{Burners, Cgroup};
use crate::bed::kernel_gossip;
use crate::bed::process::Running;
use kernel_gossip::sinks::frames::lines;
use kernel_gossip::sinks::frames::{Frame, Row};

const MS: Duration = Duration::from_millis(1);

/// A view that knows no cluster.
fn top(arguments: &[&str]) -> Command {
    let mut command = kernel_gossip();
    command.arg("top").args(arguments).env_remove("KUBECONFIG").env_remove("NO_COLOR");
    command.env_remove("RUST_LOG").env("HOME", "/nonexistent");
    command
}

/// A loop that may use a twentieth of a CPU: it is throttled most of the time, whoever shares the CPU with it.
fn throttled(name: &str) -> (Cgroup, Burners) {
    let cgroup = Cgroup::new(name);
    cgroup.limit(Some(5 * MS), 100 * MS);
    let burner = cgroup.burn(1, Some(0));
    (cgroup, burner)
}

/// The next frame of what `--output json` writes.
fn next_frame(top: &mut Running) -> Frame {
    let line = top.line("a frame", |line| !line.to_stderr && line.text.starts_with("{\"number\""));
    lines::frame(line.text.as_bytes(), 2).expect("a frame")
}

fn row<'a>(frame: &'a Frame, cgroup: &str) -> Option<&'a Row> {
    frame.workloads.iter().find(|row| *row.cgroup == *cgroup)
}

/// What a name on a terminal must not do: clear it, set its title, go on in another colour, turn the order of reading.
const HOSTILE: &str = "kg\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil";

/// Frames of a real run, beside a loop that is throttled, two that share a CPU, and a name that wants to be more than one.
struct Recorded {
    frames: Vec<Arc<Frame>>,
    throttled: String,
    /// The end of the hostile name, which is as it was given.
    hostile: String,
}

/// The same for all tests: until the throttled loop was whispered of, and two more.
fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let (cgroup, _burner) = throttled("recorded");
        let hostile = Cgroup::new(HOSTILE);
        let _loops = hostile.burn(2, Some(0));
        let mut top = Running::start(&mut top(&["--output", "json"]));
        let mut frames = Vec::new();
        let whispered = |frame: &Frame| frame.whispers.iter().any(|said| *said.cgroup == cgroup.path());
        while !frames.last().is_some_and(|frame: &Arc<Frame>| whispered(frame)) {
            frames.push(Arc::new(next_frame(&mut top)));
        }
        frames.extend((0..2).map(|_| Arc::new(next_frame(&mut top))));
        let path = hostile.path();
        let end = &path[path.find("evil").expect("its end")..];
        Recorded { frames, throttled: cgroup.path(), hostile: end.to_owned() }
    })
}
