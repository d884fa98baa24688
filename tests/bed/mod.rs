//! What the integration tests share: the real parts they run against, child processes that end with
//! the test, and cgroups with real load in them.
//!
//! Tests that need more than root and BPF say so with `#[ignore = "needs …"]`, so that a plain
//! `cargo test` passes on any machine and says what it left out; `scripts/test` provides the part and
//! runs them with `--include-ignored`.
#![allow(dead_code, reason = "each test binary is a crate of its own and uses a part of this one")]

pub mod births;
pub mod bundle;
pub mod cgroup;
pub mod cpus;
pub mod grafana;
pub mod http;
pub mod hungry;
pub mod manifest;
pub mod measure;
pub mod memory;
pub mod net;
pub mod pod;
pub mod pressure;
pub mod process;
pub mod prometheus;
pub mod pty;
pub mod receiver;
pub mod stats;
pub mod strace;
pub mod whisper;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a test waits for something that is certain to happen: only a hung program takes this long,
/// also under an emulated CPU, or beside seven other tests on two.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub fn kernel_gossip() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kernel-gossip"))
}

/// A real part by its name (`otelcol`, `prometheus`, `promtool`), in the directory `$KG_TOOLS`, else where
/// `tests/testbed/tools` puts it.
///
/// # Panics
/// Without the part, with the command that builds it.
pub fn tool(name: &str) -> Command {
    let bin = std::env::var_os("KG_TOOLS").map_or_else(|| testbed_dir().join("bin"), PathBuf::from);
    let path = bin.join(name);
    assert!(path.exists(), "no {}: run tests/testbed/tools {name}", path.display());
    Command::new(path)
}

/// Where the test bed keeps what it built.
pub fn testbed_dir() -> PathBuf {
    std::env::var_os("TESTBED_DIR").map_or_else(|| "/var/tmp/kg-testbed".into(), PathBuf::from)
}

/// The scripts of the Kubernetes test bed, whose cluster is up: `$KUBECONFIG` names it.
///
/// # Panics
/// Without a cluster: `scripts/test cluster` brings one up, sets `$KG_TESTBED` and runs these tests.
pub fn testbed() -> PathBuf {
    let scripts = std::env::var_os("KG_TESTBED").expect("no cluster: run scripts/test cluster");
    assert!(std::env::var_os("KUBECONFIG").is_some(), "KG_TESTBED is set without KUBECONFIG");
    scripts.into()
}

/// `kubectl` of the test bed, for its cluster.
pub fn kubectl() -> Command {
    testbed();
    Command::new(testbed_dir().join("cluster/bin/kubectl"))
}

/// Whether a service account is allowed this (arguments of `kubectl auth can-i`).
pub fn allowed(namespace: &str, service_account: &str, what: &[&str]) -> bool {
    let who = format!("--as=system:serviceaccount:{namespace}:{service_account}");
    let out = kubectl().args(["auth", "can-i", "-n", namespace, &who]).args(what).output().expect("kubectl");
    String::from_utf8_lossy(&out.stdout).trim() == "yes"
}

/// Waits until it is: the authorizer learns of roles and bindings by a watch of its own.
pub fn until_allowed(namespace: &str, service_account: &str, what: &[&str]) {
    until("the right", || allowed(namespace, service_account, what).then_some(()));
}

/// A loopback address with a TCP port that nobody used a moment ago, and that this program gives out once.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        // The kernel may draw the same twice.
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address) {
            return address;
        }
    }
}

/// Repeats `probe` until it gives something.
///
/// # Panics
/// After [`PATIENCE`], naming `what` was waited for.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An emulated CPU: slow, and readings of two clocks are milliseconds apart there.
pub fn emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU"))
}

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
