//! What it says, against `cpu.stat`; what is recorded, replayed and handed out by an agent is the same.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::SystemTime;

use super::{HOSTILE, MS, next_frame, recorded, row, throttled, top};
use crate::bed::http::get;
use crate::bed::process::{Running, output};
use crate::bed::{free_address, kernel_gossip, until};
use kernel_gossip::plain::is_hidden;
use kernel_gossip::sinks::frames::{Frame, lines};

/// The throttled time of one interval is what `cpu.stat` grew by in it, but for the stalls that it cuts at both ends.
#[test]
fn an_interval_says_what_cpu_stat_grew_by() {
    let (cgroup, _burner) = throttled("once");
    let path = cgroup.path();
    let (stop, stopped) = channel::<()>();
    let (frame, notes) = std::thread::scope(|scope| {
        let cgroup = &cgroup;
        let oracle = scope.spawn(move || {
            let mut notes = Vec::new();
            while stopped.recv_timeout(10 * MS) == Err(RecvTimeoutError::Timeout) {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
                notes.push((now.as_secs_f64(), cgroup.throttled().as_secs_f64()));
            }
            notes
        });
        let said = output(&mut top(&["--once", "--output", "json", "--interval", "3s"]));
        drop(stop);
        let frame: Frame = lines::frame(said.as_bytes(), 1).expect("one frame and nothing else");
        (frame, oracle.join().expect("noted"))
    });
    let at = |time: f64| notes[notes.partition_point(|(noted, _)| *noted < time).min(notes.len() - 1)].1;
    let end = frame.at_unix_ns as f64 / 1e9;
    let grown = at(end) - at(end - frame.seconds);
    let row = row(&frame, &path).expect("a row");
    let said = row.throttled_seconds.expect("throttled time");
    println!("top {said:.3} s of {:.3} s; cpu.stat {grown:.3} s", frame.seconds);
    // A stall lasts 95 ms, and is counted when it ends.
    assert!((said - grown).abs() <= 0.2, "{said} {grown} {row:#?}");
    // One CPU, one thread: wall time is the same, and nothing else is lost but to whoever shares the CPU.
    let percent = row.throttled_percent.expect("wall time");
    assert!((percent - said / frame.seconds * 100.0).abs() < 0.5, "{row:#?}");
    assert!(row.lost_percent >= percent && row.lost_percent <= 100.0, "{row:#?}");
    assert_eq!(row.limit_cores, Some(0.05), "{row:#?}");
    let split = row.split.expect("a split");
    assert!((split.total() - frame.seconds).abs() < 0.2, "one thread that always wants to run: {row:#?}");
}

/// Who holds up whom: a name and a time, in the frame and on the page.
#[test]
fn a_neighbour_is_to_blame() {
    let recorded = recorded();
    let blamed = |frame: &Frame| {
        let row = row(frame, &recorded.throttled)?;
        row.blame.iter().find(|blamed| blamed.cgroup.ends_with(&recorded.hostile)).map(|b| b.seconds)
    };
    let all: Vec<f64> = recorded.frames.iter().filter_map(|frame| blamed(frame)).collect();
    println!("held up {all:?} s");
    assert!(all.iter().any(|seconds| *seconds > 0.001), "{all:?}");
}

fn shown(name: &str) -> String {
    kernel_gossip::plain::Printable(name).to_string()
}

#[test]
fn no_name_becomes_more_than_a_name() {
    let recorded = recorded();
    let named = recorded.frames.iter().flat_map(|frame| &frame.workloads);
    let named: Vec<_> = named.filter(|row| row.cgroup.contains("evil")).collect();
    assert!(!named.is_empty() && HOSTILE.chars().any(is_hidden));
    for frame in &recorded.frames {
        let mut text = Vec::new();
        lines::write(&mut text, &**frame).expect("written");
        let text = String::from_utf8(text).expect("text");
        assert!(!text.trim_end().chars().any(is_hidden), "{text}");
    }
    // Nor by way of a file or an agent that is not to be trusted.
    let forged =
        format!("{{\"workloads\":[{{\"name\":{}}}]}}", serde_json::to_string(HOSTILE).expect("JSON"));
    let frame = lines::frame(forged.as_bytes(), 2).expect("a frame");
    assert_eq!(*frame.workloads[0].name, shown(HOSTILE));
}

#[test]
fn what_is_replayed_is_what_was_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("frames").display().to_string();
    let (_cgroup, _burner) = throttled("replayed");
    let mut live = Running::start(&mut top(&["--output", "json", "--record", &file]));
    (0..4).for_each(|_| drop(next_frame(&mut live)));
    let (status, said, _) = live.terminate();
    assert!(status.success(), "{said:?}");
    let said: String =
        said.iter().filter(|line| !line.to_stderr).map(|line| format!("{}\n", line.text)).collect();
    assert_eq!(std::fs::read_to_string(&file).expect("a recording"), said);
    assert_eq!(output(&mut top(&["--replay", &file, "--output", "json"])), said);

    // The table for people likewise.
    let once = dir.path().join("once").display().to_string();
    let table = output(&mut top(&["--once", "--record", &once]));
    assert_eq!(output(&mut top(&["--once", "--replay", &once])), table);
    assert!(table.contains("WORKLOAD") && table.lines().count() >= 4, "{table}");

    // What was recorded before stays.
    let again = top(&["--once", "--record", &once]).output().expect("run");
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && why.contains("File exists"), "{why}");
}

#[test]
fn what_is_no_recording_is_refused_in_one_line() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let name = file.path().display().to_string();
    let refused = || {
        let out = top(&["--replay", &name, "--once"]).output().expect("run");
        assert!(!out.status.success());
        String::from_utf8(out.stderr).expect("text")
    };
    assert_eq!(
        refused(),
        format!(
            "kernel-gossip: --replay {name}: is no recording of kernel-gossip top: its first line does not say so\n"
        )
    );
    writeln!(file, "{{\"format\":\"kernel-gossip frames\",\"version\":9}}").expect("written");
    assert!(refused().contains("is of version 9"), "{}", refused());
}

/// What an agent hands out is what it would show itself, and a recording as it stands.
#[test]
fn an_agent_hands_out_its_frames() {
    let (cgroup, _burner) = throttled("attached");
    let address = free_address();
    let agent = |arguments: &[&str]| {
        let mut command: Command = kernel_gossip();
        command.args(["agent", "--output", "none"]).args(arguments);
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        command
    };
    let agent = Running::start(&mut agent(&["--prometheus", &address.to_string()]));
    until("the agent's server", || std::net::TcpStream::connect(address).ok());
    let url = format!("http://{address}");
    let said = output(&mut top(&["--attach", &url, "--once", "--output", "json"]));
    let frame = lines::frame(said.as_bytes(), 1).expect("a frame");
    let row = row(&frame, &cgroup.path()).expect("a row");
    assert!(row.usage_cores > Some(0.0) && row.split.is_some() && row.limit_cores == Some(0.05), "{row:#?}");

    let answer = get(address, &format!("/top?after={}", frame.number), "");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let mut body = answer.body.as_bytes();
    let header = lines::read_header(&mut body).expect("a header");
    assert!(header.started_unix_ns > 0);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &answer.body).expect("written");
    let replayed = output(&mut top(&["--replay", &file.path().display().to_string(), "--output", "json"]));
    assert_eq!(replayed, answer.body);
    let first = lines::frame(replayed.lines().nth(1).expect("a frame").as_bytes(), 2).expect("a frame");
    assert!(first.number > frame.number, "none twice");
    agent.terminate();

    let nobody = top(&["--attach", &url, "--once"]).output().expect("run");
    let why = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(why.contains("no agent answers") && why.lines().count() == 1, "{why}");
}
