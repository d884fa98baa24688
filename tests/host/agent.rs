//! The agent as a user runs it: real load, real output, real signals.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bed::cgroup::Cgroup;
use crate::bed::memory::Squeezed;
use crate::bed::pressure::{Oracle, Reading, shares};
use crate::bed::process::{Line, Running, without_capabilities};
use crate::bed::{self, http, kernel_gossip, until};
use kernel_gossip::names;
use serde_json::Value;
use tempfile::NamedTempFile;

const MS: Duration = Duration::from_millis(1);

/// An agent that knows no cluster and says JSON.
pub(super) fn agent(arguments: &[&str]) -> Command {
    let mut command = kernel_gossip();
    command.args(["agent", "--output", "json"]).args(arguments);
    // Not the cluster of another test, nor a collector of this shell's.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name == "KUBECONFIG") {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    command
}

/// A group that is refused the CPU four fifths of the time.
fn throttled(name: &str) -> Cgroup {
    let cgroup = Cgroup::new(name);
    cgroup.limit(Some(20 * MS), 100 * MS);
    cgroup
}

/// The next whisper of this signal about this cgroup.
fn whisper(agent: &mut Running, cgroup: &Cgroup, signal: &str) -> Value {
    whisper_of(agent, &cgroup.path(), signal)
}

/// The next whisper of this signal about the cgroup of this path.
pub(super) fn whisper_of(agent: &mut Running, path: &str, signal: &str) -> Value {
    let mut found = Value::Null;
    agent.line(&format!("{signal} of {path}"), |line| {
        if line.to_stderr {
            return false;
        }
        let said: Value = serde_json::from_str(&line.text).expect("a line of JSON");
        let wanted = said[names::resource::CGROUP] == path && said["kernel_gossip.whisper.signal"] == signal;
        if wanted {
            found = said;
        }
        wanted
    });
    found
}

/// The next whisper of this signal about the cgroup of this path that is resolved, as one is when the cgroup is gone. On a busy
/// machine there may be others.
fn until_resolved(agent: &mut Running, path: &str, signal: &str) -> Value {
    let signal = format!(r#"whisper.signal":"{signal}""#);
    let line = agent.line("resolved", |line| {
        let resolved = line.text.contains(r#"whisper.transition":"resolved""#);
        resolved && line.text.contains(path) && line.text.contains(&signal)
    });
    serde_json::from_str(&line.text).expect("a line of JSON")
}

#[track_caller]
pub(super) fn number(whisper: &Value, name: &str) -> f64 {
    whisper[name].as_f64().unwrap_or_else(|| panic!("no {name} in {whisper:#}"))
}

#[test]
fn a_throttled_cgroup_is_told_with_its_numbers() {
    let cgroup = throttled("told");
    let mut agent = Running::start(&mut agent(&[]));
    let start = Instant::now();
    let burner = cgroup.burn(1, Some(0));
    let said = whisper(&mut agent, &cgroup, "cpu_throttle");
    println!("first line {:.1} s after the load began", start.elapsed().as_secs_f64());
    assert_eq!(said["kernel_gossip.whisper.transition"], "started", "{said:#}");
    assert_eq!(number(&said, "kernel_gossip.cpu.limit"), 0.2);
    let (used, wanted) =
        (number(&said, "kernel_gossip.cpu.usage"), number(&said, "kernel_gossip.cpu.demand"));
    assert!(used <= 0.25 && wanted > used, "{said:#}");
    let percent = number(&said, "kernel_gossip.cpu.throttled.percent");
    assert!((25.0..=100.0).contains(&percent), "{said:#}");
    drop(burner);
    let path = cgroup.path();
    drop(cgroup);
    let last = until_resolved(&mut agent, &path, "cpu_throttle");
    assert_eq!(last["kernel_gossip.whisper.state"], "resolved", "{last:#}");
}

#[test]
fn a_neighbour_is_named() {
    let (victim, noisy) = (Cgroup::new("victim"), Cgroup::new("noisy"));
    let mut agent = Running::start(&mut agent(&[]));
    let _burners = (victim.burn(1, Some(0)), noisy.burn(3, Some(0)));
    let said = whisper(&mut agent, &victim, "cpu_contention");
    let names = said["kernel_gossip.neighbour.names"].as_array().unwrap_or_else(|| panic!("{said:#}"));
    // Another test's load may be on this CPU too.
    assert!(names.contains(&Value::from(noisy.path())), "{said:#}");
}

/// The share of the window is the one that `memory.pressure` itself gives, read beside the agent.
#[test]
fn a_group_that_waits_for_memory_is_told_with_the_kernels_count() {
    let Some(mut squeezed) = Squeezed::new("squeezed") else {
        println!("this kernel counts no pressure of groups");
        return;
    };
    let config = configuration("signals: {memory_pressure: {repeat: 2s}}\n");
    let mut agent = Running::start(&mut agent(&["--config", &config.path().to_string_lossy()]));
    let oracle = squeezed.oracle();
    squeezed.read();
    let numbers = ["kernel_gossip.memory.pressure.percent", "kernel_gossip.memory.pressure.full_percent"];
    let said = as_the_kernel_counts(&mut agent, squeezed.path(), "memory_pressure", numbers[0], oracle);
    assert!(number(&said, numbers[1]) <= number(&said, numbers[0]), "{said:#}");
    // What held it up, by whom, and what it has.
    let of = |name: &str| number(&said, &format!("kernel_gossip.memory.{name}"));
    let cause = if squeezed.by_high() { "high" } else { "own" };
    assert_eq!(said["kernel_gossip.memory.cause"], cause, "{said:#}");
    let waited = of("thread.time") + of("reclaim.own");
    assert!(waited > 0.1 && of("reclaim.node") < waited / 10.0, "{said:#}");
    assert!(
        of("usage") <= 16e6 * 1.1 && of("working_set") <= of("usage") && of("reclaimable") <= of("usage"),
        "{said:#}"
    );
    if !squeezed.by_high() {
        assert!(of("limit") == f64::from(16 << 20) && of("refaults") > 1000.0, "{said:#}");
    }
    let path = squeezed.path().to_owned();
    drop(squeezed);
    until_resolved(&mut agent, &path, "memory_pressure");
}

/// The same of `io.pressure`, and of the time in which nothing of the group went on.
#[test]
fn a_group_that_stands_still_for_io_is_told_with_the_kernels_count() {
    let Some(mut reading) = Reading::new("reading") else {
        println!("this kernel counts no pressure of groups");
        return;
    };
    let config = configuration("signals: {io_pressure: {repeat: 2s}}\n");
    let mut agent = Running::start(&mut agent(&["--config", &config.path().to_string_lossy()]));
    let oracle = reading.oracle();
    reading.read();
    let numbers = ["kernel_gossip.io.pressure.percent", "kernel_gossip.io.pressure.full_percent"];
    let said = as_the_kernel_counts(&mut agent, reading.path(), "io_pressure", numbers[1], oracle);
    assert!(number(&said, numbers[1]) <= number(&said, numbers[0]), "{said:#}");
    let path = reading.path().to_owned();
    drop(reading);
    until_resolved(&mut agent, &path, "io_pressure");
}

/// A whisper of a whole window in which it waited, whose share in percent is the one of the pressure file.
fn as_the_kernel_counts(agent: &mut Running, path: &str, signal: &str, share: &str, oracle: Oracle) -> Value {
    let first = whisper_of(agent, path, signal);
    assert_eq!(first["kernel_gossip.whisper.transition"], "started", "{first:#}");
    let said = loop {
        let said = whisper_of(agent, path, signal);
        // A whole window, and what its oldest reading had missed.
        if said["kernel_gossip.whisper.transition"] == "repeated" && seconds(&said) - seconds(&first) > 20.0 {
            break said;
        }
    };
    let (notes, window) = (oracle.stop(), number(&said, "kernel_gossip.whisper.window"));
    let percent = number(&said, share);
    // The agent's count is as old as the kernel's averaging, 2 s, or its own reading of the file, 5 s, at most.
    let (least, most) = shares(&notes, window, seconds(&said) - 7.0..=seconds(&said) + 0.5);
    println!("{share} {percent:.1} %; the pressure file {least:.1} to {most:.1} %");
    assert!(least - 1.0 <= percent && percent <= most + 1.0, "{least} {most} {said:#}");
    said
}

/// When it was said, seconds since 1970.
fn seconds(said: &Value) -> f64 {
    let at: jiff::Timestamp = said["timestamp"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    at.as_nanosecond() as f64 / 1e9
}

#[test]
fn sigterm_ends_it_at_once() {
    let cgroup = throttled("term");
    let _burner = cgroup.burn(1, None);
    let mut agent = Running::start(&mut agent(&[]));
    whisper(&mut agent, &cgroup, "cpu_throttle");
    let (status, _, took) = agent.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// How long an end may take here: 2 s are promised, the rest is for a busy machine.
const END: Duration = Duration::from_secs(5);

/// Ends an agent by SIGTERM: what it said, and that it ended well.
fn ends_well(agent: Running) -> Vec<Line> {
    let (status, lines, took) = agent.terminate();
    println!("ended within {took:?}");
    assert!(status.success(), "{status}: {lines:?}");
    assert!(took < END, "{took:?}: {lines:?}");
    lines
}

/// A receiver that takes connections and says nothing.
fn silent_receiver() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    (listener, endpoint)
}

/// Nobody reads its stdout and nobody takes its export: one wait for both, and a line for each.
#[test]
fn sigterm_ends_it_though_nobody_listens() {
    let cgroup = throttled("unheard");
    let _burner = cgroup.burn(1, None);
    let (_listener, endpoint) = silent_receiver();
    let address = bed::free_address();
    let mut command = agent(&["--prometheus", &address.to_string()]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let (running, _unread) = Running::start_unread(&mut command);
    until("whisper", || {
        let shown = http::try_get(address, "/metrics", "").ok()?.body;
        shown
            .lines()
            .any(|l| l.starts_with("kernel_gossip_whisper_active{") && l.ends_with(" 1"))
            .then_some(())
    });
    let lines = ends_well(running);
    for part in ["stdout is not being read", "were not delivered before the end"] {
        assert_eq!(lines.iter().filter(|l| l.text.contains(part)).count(), 1, "{part}: {lines:?}");
    }
}

/// A name server that says nothing: the look-up of the collector's name lasts longer than the agent may.
#[test]
fn sigterm_ends_it_though_a_name_is_looked_up() {
    let address = Ipv4Addr::new(127, 53, 53, 53);
    let server = UdpSocket::bind((address, 53)).expect("the port of a name server");
    let resolv = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(resolv.path(), format!("nameserver {address}\n")).expect("write");
    // Only this agent sees the file in that place.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]);
    let agent = agent(&[]);
    command.arg(resolv.path()).arg(agent.get_program()).args(agent.get_args());
    for (name, value) in agent.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.invalid:4317");
    let running = Running::start(&mut command);
    server.set_read_timeout(Some(bed::PATIENCE)).expect("a socket");
    server.recv(&mut [0; 512]).expect("the agent asks for the name");
    ends_well(running);
}

/// While it asks an API server that says nothing, it has not begun; so there is nothing to end.
#[test]
fn sigterm_ends_a_start() {
    let (listener, server) = silent_receiver();
    let file = kubeconfig(&server);
    let mut command = agent(&["--node-name", "nowhere"]);
    let running = Running::start(command.env("KUBECONFIG", file.path()));
    let _asked = listener.accept().expect("the agent asks");
    let lines = ends_well(running);
    assert!(lines.is_empty(), "the start did not go on: {lines:?}");
}

/// A configuration file with this text.
pub(super) fn configuration(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), text).expect("write");
    file
}

/// Nobody is asked where the configuration says so, whatever there is to ask.
#[test]
fn kubernetes_off_asks_no_api_server() {
    let (listener, server) = silent_receiver();
    listener.set_nonblocking(true).expect("a socket");
    let (config, kubeconfig) = (configuration("agent: {kubernetes: off}\n"), kubeconfig(&server));
    let address = bed::free_address().to_string();
    let config = config.path().to_string_lossy().into_owned();
    let mut command = agent(&["--config", &config, "--prometheus", &address]);
    let mut agent = Running::start(command.env("KUBECONFIG", kubeconfig.path()));
    agent.says("/metrics");
    let asked = listener.accept().expect_err("nobody asks");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
    ends_well(agent);
}

/// A host's name that no node can have, where there is a kubeconfig: one line, unless a cluster is asked for.
#[test]
fn a_name_that_is_no_nodes_is_told_and_it_runs() {
    let kubeconfig = kubeconfig(&format!("http://{}", bed::free_address()));
    let named = |command: &mut Command| {
        Running::start(command.env("KUBECONFIG", kubeconfig.path()).env("NODE_NAME", "my_laptop"))
    };
    let cgroup = throttled("laptop");
    let _burner = cgroup.burn(1, None);
    let mut auto = named(&mut agent(&[]));
    whisper(&mut auto, &cgroup, "cpu_throttle");
    let lines = ends_well(auto);
    assert_eq!(lines.iter().filter(|l| l.text.contains("my_laptop")).count(), 1, "{lines:?}");

    let on = configuration("agent: {kubernetes: on}\n");
    let (status, lines) = named(&mut agent(&["--config", &on.path().to_string_lossy()])).end();
    assert!(!status.success(), "{lines:?}");
    assert!(lines.iter().any(|l| l.text.contains("set NODE_NAME")), "{lines:?}");
}

/// With BPF denied the cgroup files remain: the same whisper, and one line that says what is missing.
#[test]
fn without_capabilities_it_runs_from_files() {
    let cgroup = throttled("files");
    let _burner = cgroup.burn(1, None);
    let mut agent = Running::start(without_capabilities(&mut agent(&[])));
    let said = whisper(&mut agent, &cgroup, "cpu_throttle");
    assert_eq!(number(&said, "kernel_gossip.cpu.limit"), 0.2);
    let stalled = &said["kernel_gossip.cpu.throttled.percent"];
    assert!(said["kernel_gossip.cpu.wait.neighbour"].is_null(), "only the scheduler knows: {said:#}");
    println!("throttled: {stalled} %");
    let (status, lines, _) = agent.terminate();
    assert!(status.success());
    let of_cpu = lines.iter().filter(|l| l.to_stderr && l.text.contains("cpu: unavailable")).count();
    assert_eq!(of_cpu, 1, "{lines:?}");
}

/// One line, and the others are told of all the same.
#[test]
fn a_cgroup_that_cannot_be_read_is_told_once() {
    let (closed, open) = (throttled("closed"), throttled("open"));
    for file in std::fs::read_dir(closed.dir()).expect("its files") {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o0);
        std::fs::set_permissions(file.expect("a file").path(), mode).expect("chmod");
    }
    let _burner = open.burn(1, None);
    let address = bed::free_address();
    let mut agent = Running::start(without_capabilities(&mut agent(&["--prometheus", &address.to_string()])));
    whisper(&mut agent, &open, "cpu_throttle");
    let counted = r#"kernel_gossip_agent_losses_total{kernel_gossip_agent_loss_reason="unreadable_cgroup"} "#;
    let shown = http::get(address, "/metrics", "").body;
    let count = shown.lines().find_map(|line| line.strip_prefix(counted)).expect("the count");
    assert_ne!(count, "0");
    let (_, lines, _) = agent.terminate();
    let told: Vec<_> = lines.iter().filter(|l| l.text.contains("it is left out")).collect();
    assert!(told.len() == 1 && told[0].text.contains(&closed.path()), "{lines:?}");
}

/// Ids of the BPF programs that a process has loaded.
fn loaded_by(pid: u32) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its files");
    let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    // A program's own file has its type, a link's only its id.
    let programs = texts.filter(|text| text.contains("prog_type:"));
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    programs.filter_map(id).collect()
}

/// Whether any process has it.
fn is_loaded(id: u32) -> bool {
    libbpf_rs::query::ProgInfoIter::default().any(|program| program.id == id)
}

#[test]
fn kill_leaves_nothing_attached() {
    let cgroup = throttled("kill");
    let _burner = cgroup.burn(1, None);
    let mut agent = Running::start(&mut agent(&[]));
    whisper(&mut agent, &cgroup, "cpu_throttle");
    let ours = loaded_by(agent.pid());
    assert!(!ours.is_empty() && ours.iter().all(|id| is_loaded(*id)), "while the agent runs: {ours:?}");
    agent.signal(libc::SIGKILL);
    agent.end();
    until("end of the programs", || (!ours.iter().any(|id| is_loaded(*id))).then_some(()));
}

#[test]
fn two_agents_run_side_by_side() {
    let cgroup = throttled("two");
    let mut agents = [Running::start(&mut agent(&[])), Running::start(&mut agent(&[]))];
    let _burner = cgroup.burn(1, None);
    let percents = agents
        .each_mut()
        .map(|agent| number(&whisper(agent, &cgroup, "cpu_throttle"), "kernel_gossip.cpu.throttled.percent"));
    println!("both say {percents:?} %");
}

#[test]
fn a_bad_configuration_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kernel-gossip.yaml");
    std::fs::write(&file, "signals:\n  cpu_throttle:\n    treshold: 5\n").expect("write");
    let (status, lines) = Running::start(&mut agent(&["--config", &file.to_string_lossy()])).end();
    assert!(!status.success());
    let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("kernel-gossip.yaml:3:") && lines[0].contains("treshold"), "{lines:?}");
}

/// A kubeconfig whose one cluster is this server.
fn kubeconfig(server: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}], users: [{{name: u, user: {{}}}}]}}"
    );
    std::fs::write(file.path(), text).expect("write");
    file
}

/// An API server that is not there: one line, and the whispers go out all the same.
#[test]
fn without_an_api_server_it_runs() {
    let file = kubeconfig(&format!("http://{}", bed::free_address()));
    let cgroup = throttled("noapi");
    let _burner = cgroup.burn(1, None);
    let arguments = ["--node-name", "nowhere", "--kubeconfig", &file.path().to_string_lossy()];
    let mut agent = Running::start(&mut agent(&arguments));
    whisper(&mut agent, &cgroup, "cpu_throttle");
    let (status, lines, _) = agent.terminate();
    assert!(status.success());
    let told: Vec<_> = lines.iter().filter(|l| l.to_stderr && l.text.contains("API server")).collect();
    assert_eq!(told.len(), 1, "{lines:?}");
}
