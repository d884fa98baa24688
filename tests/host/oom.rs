//! OOM kills as the agent tells them: real kills, real output.

use std::time::{Duration, Instant};

use kernel_gossip::signals::SignalKind;
use serde_json::Value;

use super::agent::{agent, configuration, number, whisper_of};
use crate::bed::cgroup::Cgroup;
use crate::bed::hungry::{EATER, Eater, Group, MIB, USER};
use crate::bed::process::{Running, without_capabilities};

/// A group in the memory controller's tree and, where that is another one, in the one that the agent reads.
struct Both {
    group: Group,
    _twin: Option<Cgroup>,
}

fn both(name: &str) -> Both {
    let group = Group::new(name);
    let twin = (!group.unified).then(|| Cgroup::at(&group.path()));
    Both { group, _twin: twin }
}

/// Kills one process of the group: its PID.
fn kill(group: &Group) -> i32 {
    let mut eater = Eater::start(group);
    eater.eat(64 * MIB);
    assert_eq!(eater.ends(), libc::SIGKILL);
    eater.pid
}

/// Said between two readings, which are a minute apart here: not when the next one comes.
#[test]
fn a_kill_is_told_at_once_with_its_numbers_and_each_is_counted() {
    let both = both("oomtold");
    both.group.limit(16 * MIB);
    // No window may be shorter than two intervals.
    let windows: Vec<_> =
        SignalKind::windowed().map(|kind| format!("{}: {{window: 2m}}", kind.as_str())).collect();
    let config = configuration(&format!("agent: {{interval: 60s}}\nsignals: {{{}}}\n", windows.join(", ")));
    let mut agent = Running::start(&mut agent(&["--config", &config.path().to_string_lossy()]));
    agent.says("watching");
    let start = Instant::now();
    for kills in 1..=3 {
        let pid = kill(&both.group);
        let said = whisper_of(&mut agent, &both.group.path(), "oom_kill");
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("kernel_gossip.memory.oom.victims"), format!("{EATER} ({pid})"), "{said:#}");
        assert_eq!(text("kernel_gossip.memory.oom.asked_by"), format!("{EATER} ({pid})"), "{said:#}");
        assert_eq!(text("kernel_gossip.memory.oom.limit"), "own", "{said:#}");
        assert_eq!(number(&said, "kernel_gossip.memory.limit"), (16 * MIB) as f64);
        assert_eq!(number(&said, "kernel_gossip.memory.oom.uid"), f64::from(USER));
        assert_eq!(number(&said, "kernel_gossip.memory.oom.kills"), f64::from(kills), "{said:#}");
        let held = number(&said, "kernel_gossip.memory.oom.anonymous");
        assert!(
            held > (8 * MIB) as f64 && held <= number(&said, "kernel_gossip.memory.oom.resident"),
            "{said:#}"
        );
        assert!(said["kernel_gossip.memory.oom.lowered_by"].is_null(), "{said:#}");
        let transition = if kills == 1 { "started" } else { "repeated" };
        assert_eq!(said["kernel_gossip.whisper.transition"], transition, "{said:#}");
        assert_eq!(said["kernel_gossip.whisper.severity"], "critical", "{said:#}");
    }
    println!("three kills and their lines within {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(30), "not only with the next reading");
    let (status, lines, _) = agent.terminate();
    assert!(status.success(), "{lines:?}");
    let said =
        |l: &&crate::bed::process::Line| l.text.contains(&both.group.path()) && l.text.contains("oom_kill");
    assert_eq!(lines.iter().filter(said).count(), 3, "{lines:?}");
}

/// Without BPF the kernel's counts remain, and that the rest is not known is said.
#[test]
fn without_capabilities_kills_are_counted() {
    let both = both("oomcount");
    both.group.limit(16 * MIB);
    let mut agent = Running::start(without_capabilities(&mut agent(&[])));
    agent.says("watching");
    for _ in 0..2 {
        kill(&both.group);
    }
    let mut kills = 0.0;
    let mut said = Value::Null;
    // They may be in two readings.
    while kills < 2.0 {
        said = whisper_of(&mut agent, &both.group.path(), "oom_kill");
        kills = number(&said, "kernel_gossip.memory.oom.kills");
    }
    assert_eq!((kills, both.group.kills()), (2.0, 2));
    assert!(said["kernel_gossip.memory.oom.victims"].is_null(), "{said:#}");
    let (_, lines, _) = agent.terminate();
    let of_oom = lines.iter().filter(|l| l.to_stderr && l.text.contains("oom: degraded")).count();
    assert_eq!(of_oom, 1, "{lines:?}");
}
