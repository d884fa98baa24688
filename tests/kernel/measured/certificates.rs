//! Certificates to the call: of many pods born together, of a container in a user namespace, and beside a node that is busy with
//! what has nothing to do with them. The oracle is strace: how often a container's program calls the kernel.
//! `cargo test --release --test kernel certificates:: -- --include-ignored --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bed::measure::spent;
use crate::bed::pod::Pod;
use crate::bed::process::Running;
use crate::bed::{emulated, free_address, http, kernel_gossip};
use crate::kernel::birth::alone;
use crate::kernel::birth_room::Living;

/// What a container runs: so many times umask, and then it listens.
fn program(times: usize) -> String {
    format!(
        "i=0; while [ $i -lt {times} ]; do umask 22; i=$((i+1)); done; exec /bin/busybox httpd -f -p 8080"
    )
}

/// How many calls of umask that is, by strace.
fn oracle(times: usize) -> u64 {
    let script = program(times).replace("exec /bin/busybox httpd -f -p 8080", "exit 0");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=umask", "busybox", "sh", "-c", &script]);
    let told = strace.stdin(Stdio::null()).output().expect("strace");
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let line = told.lines().find(|l| l.trim_end().ends_with(" umask")).expect("umask");
    line.split_whitespace().nth(3).expect("calls").parse().expect("a number")
}

/// `dir`: for its configuration. Without an API server a birth is over when its container listens, or has had time to.
fn agent(dir: &TempDir, arguments: &[&str]) -> Running {
    let config = dir.path().join("config.yaml");
    fs::write(&config, "births: {settle: 6s}\n").expect("a configuration");
    let mut agent = kernel_gossip();
    agent.args(["agent", "--output", "json", "--config"]).arg(config).args(arguments);
    let mut agent = Running::start(agent.env_remove("KUBECONFIG").env("HOME", "/nonexistent"));
    agent.says("births: working");
    agent.says("watching");
    agent
}

/// The certificates of these pods, once there is one of each: by the pod's UID.
fn certificates(agent: &mut Running, uids: &BTreeSet<&str>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    agent.line("a certificate of each", |line| {
        let birth: Value = serde_json::from_str(&line.text).unwrap_or_default();
        if birth["event.name"] == "kernel_gossip.birth"
            && let Some(uid) = birth["k8s.pod.uid"].as_str().filter(|uid| uids.contains(uid))
        {
            all.insert(uid.to_owned(), birth["kernel_gossip.birth.certificate"].clone());
        }
        all.len() == uids.len()
    });
    all
}

/// How often the container's own program called umask; `None` where the certificate has no totals, because records were lost.
fn calls(certificate: &Value, pod: &Pod) -> Option<u64> {
    assert_eq!((&certificate["outcome"], &certificate["failure"]), (&"complete".into(), &Value::Null));
    let ids: Vec<_> =
        certificate["containers"].as_array().expect("containers").iter().map(|c| &c["id"]).collect();
    assert_eq!(ids, [&Value::from(&*pod.id)], "{certificate}");
    let total = &certificate["kernelStats"]["totalSyscalls"];
    if total.is_null() {
        let missing = certificate["missing"].as_array().expect("what is missing");
        assert!(missing.iter().any(|m| m["part"] == "records"), "{certificate}");
        return None;
    }
    let parts = certificate["breakdown"].as_array().expect("parts");
    let of = |p: &Value| p["bySyscall"]["umask"].as_u64();
    Some(parts.iter().filter(|p| p["actor"] == "container").filter_map(of).sum())
}

#[test]
#[ignore = "needs runc, busybox and strace"]
fn many_pods_are_certified_to_the_call_and_none_is_mixed_up() {
    let _alone = alone();
    let all = std::env::var("KG_BIRTH_PODS").ok().and_then(|n| n.parse().ok());
    let (pods, wave) = if emulated() { (4, 2) } else { (all.unwrap_or(40), 20) };
    // Each makes another number of calls.
    let (one, two) = (oracle(1_000), oracle(1_001));
    let each = two - one;
    let dir = tempfile::tempdir().expect("a directory");
    let mut agent = agent(&dir, &[]);
    let mut exact = 0;
    for first in (0..pods).step_by(wave) {
        let mut born: Vec<(usize, Pod)> =
            (first..(first + wave).min(pods)).map(|n| (n, Pod::new(n as u32))).collect();
        std::thread::scope(|scope| {
            for (n, pod) in &mut born {
                let script = program(1_000 + *n);
                scope.spawn(move || {
                    pod.begin();
                    pod.run(&["sh", "-c", &script]);
                });
            }
        });
        let uids = born.iter().map(|(_, pod)| &*pod.uid).collect();
        let certificates = certificates(&mut agent, &uids);
        for (n, pod) in &born {
            let certificate = &certificates[&pod.uid];
            assert_eq!(calls(certificate, pod), Some(one + *n as u64 * each), "{n}: {certificate}");
            exact += 1;
        }
    }
    println!(
        "{exact} of {pods} certificates, {wave} at once: each has as many calls of umask as strace counts"
    );
}

/// As the kubelet has a pod with `hostUsers: false` made.
#[test]
#[ignore = "needs runc, busybox and strace"]
fn a_container_in_a_user_namespace_is_certified_to_the_call() {
    let _alone = alone();
    let expected = oracle(1_000);
    let dir = tempfile::tempdir().expect("a directory");
    let mut agent = agent(&dir, &[]);
    let mut pod = Pod::new(0);
    fs::set_permissions(pod.bundle(), fs::Permissions::from_mode(0o755)).expect("for its user to see");
    pod.begin();
    pod.run_as(&["sh", "-c", &program(1_000)], |config| {
        let root = pod.bundle().join("rootfs");
        for part in [&root, &root.join("bin")] {
            chown(part, Some(100_000), Some(100_000)).expect("its user's");
        }
        let linux = &mut config["linux"];
        linux["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        for mappings in ["uidMappings", "gidMappings"] {
            linux[mappings] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        }
    });
    let certificate = &certificates(&mut agent, &[&*pod.uid].into())[&pod.uid];
    assert_eq!(calls(certificate, &pod), Some(expected), "{certificate}");
    assert_eq!(certificate["kernelStats"]["byNamespace"]["user"], 1, "{certificate}");
}

#[test]
#[ignore = "needs runc, busybox and strace"]
fn certificates_beside_a_storm_are_exact_or_have_no_totals() {
    let _alone = alone();
    let (pods, stuck, living, seconds) = if emulated() { (2, 4, 100, 2) } else { (20, 20, 3_000, 20) };
    let expected = oracle(2_000);
    let address = free_address();
    let dir = tempfile::tempdir().expect("a directory");
    let mut agent = agent(&dir, &["--prometheus", &address.to_string()]);
    let mut bystanders = Living::default();
    bystanders.begin(living / 2);
    // The kubelet waits for something, and makes nothing more of these.
    let mut waiting: Vec<Pod> = (0..stuck).map(|n| Pod::new(500 + n)).collect();
    waiting.iter_mut().for_each(Pod::begin);
    bystanders.begin(living - living / 2);

    let (end, programs) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut born: Vec<Pod> = (0..pods).map(Pod::new).collect();
    let (cpu, resident, rate, late) = std::thread::scope(|scope| {
        let ends = End(&end);
        scope.spawn(|| {
            // A thousand a second, or as many as there is CPU time for.
            let begun = Instant::now();
            while !end.load(Ordering::Relaxed) {
                let due = begun + Duration::from_millis(1) * programs.load(Ordering::Relaxed) as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let _ = Command::new("busybox").arg("true").status();
                programs.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        let (before, first) = (spent(agent.pid()).0, programs.load(Ordering::Relaxed));
        for pod in &mut born {
            pod.begin();
            pod.run(&["sh", "-c", &program(2_000)]);
        }
        let left = Duration::from_secs(seconds).saturating_sub(begun.elapsed());
        std::thread::sleep(left);
        let took = begun.elapsed().as_secs_f64();
        let (after, resident) = spent(agent.pid());
        let rate = (programs.load(Ordering::Relaxed) - first) as f64 / took;
        let late = latest(address, Duration::from_secs(seconds / 2));
        drop(ends);
        ((after - before) / took * 100.0, resident, rate, late)
    });
    let uids = born.iter().map(|pod| &*pod.uid).collect();
    let certificates = certificates(&mut agent, &uids);
    let mut exact = 0;
    for pod in &born {
        match calls(&certificates[&pod.uid], pod) {
            Some(own) => assert_eq!(own, expected, "{}", certificates[&pod.uid]),
            None => continue,
        }
        exact += 1;
    }
    println!(
        "{pods} births beside {stuck} pods that wait, {living} processes that live and {rate:.0} programs a second: {exact} exact, the \
         others without totals; the agent {cpu:.1} % of a core, {resident:.0} MiB; a reading {late:?} late at most"
    );
    // What is promised is of a release build on a machine with nothing else to do.
    if !cfg!(debug_assertions) {
        assert!(cpu <= 3.0 && resident <= 60.0, "{cpu} %, {resident} MiB");
        assert!(late <= Duration::from_millis(100), "{late:?}");
    }
}

/// Ends the storm however the test ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// By how much the time between two readings exceeded the second that it is, at most; looked for every 20 ms.
fn latest(address: SocketAddr, during: Duration) -> Duration {
    let (begun, mut late) = (Instant::now(), Duration::ZERO);
    let mut last: Option<(f64, Instant)> = None;
    while begun.elapsed() < during {
        let text = http::get(address, "/metrics", "").body;
        let count = "kernel_gossip_agent_reading_duration_seconds_count";
        let count =
            text.lines().find(|l| l.starts_with(count)).unwrap_or_else(|| panic!("no {count}: {text}"));
        let readings = count.rsplit(' ').next().expect("a number");
        let readings: f64 = readings.parse().expect("a number");
        let now = Instant::now();
        match last {
            Some((n, at)) if readings > n => {
                late = late.max((now - at).saturating_sub(Duration::from_secs((readings - n) as u64)));
                last = Some((readings, now));
            }
            None => last = Some((readings, now)),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    late
}
