//! What this host allows, found out once: all that [`plan`](super::plan) needs to know, as plain data.
//!
//! Nothing here decides anything. [`Facts`] can be written and read as JSON (`kernel-gossip check
//! --output json`), so that the facts of other hosts are test inputs.

mod btf;
mod kubernetes;
mod trees;
mod trials;

use std::path::PathBuf;
use std::time::Duration;

use procfs::KernelVersion;
use procfs::process::Process;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

pub use btf::Btf;
pub use kubernetes::{Configuration, Kubernetes};
pub use trees::{CgroupVersion, Pressure, Root, Tree, Trees};
pub use trials::{Trial, Trials};

/// Where to look for things that may be elsewhere.
#[derive(Clone, Debug)]
pub struct FactsOptions {
    /// Only cgroup trees mounted here or below count: for a container that has the host's
    /// `/sys/fs/cgroup` mounted elsewhere. `None`: all mounts are looked at.
    pub cgroup_root: Option<PathBuf>,
    /// Programs are tried that no probe uses, too: for people who ask what a host allows.
    pub every_trial: bool,
    /// Whether an API server is asked at all.
    pub ask_kubernetes: bool,
    /// The kubeconfig to reach it by; `None`: as kubectl finds it, else the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// How long the API server may take to answer.
    pub kubernetes_timeout: Duration,
}

impl Default for FactsOptions {
    fn default() -> Self {
        FactsOptions {
            cgroup_root: None,
            every_trial: false,
            ask_kubernetes: true,
            kubeconfig: None,
            kubernetes_timeout: Duration::from_secs(2),
        }
    }
}

/// One host as this process sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub kernel: Kernel,
    pub btf: Btf,
    pub privileges: Privileges,
    /// `none`, `integrity` or `confidentiality`; `None` where the kernel has no lockdown or hides its
    /// state (securityfs is often not readable in a container): then [`Trials`] tell.
    pub lockdown: Option<String>,
    pub trials: Trials,
    pub cgroups: Trees,
    pub pressure: Pressure,
    pub kubernetes: Kubernetes,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// As `uname -m` has it.
    pub machine: String,
}

/// What this process may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privileges {
    /// Effective user id.
    pub uid: u32,
    /// Those of the effective capabilities that matter here, without `CAP_`.
    pub capabilities: Vec<String>,
    /// User ids here are not the host's: capabilities count inside a user namespace only.
    pub user_namespace: bool,
    /// A seccomp filter is on this process; it may refuse bpf().
    pub seccomp: bool,
    /// Bytes of memory that may be locked (RLIMIT_MEMLOCK, the soft limit); `None` is unlimited, also if
    /// only the hard limit is (libbpf raises the soft one to it).
    pub locked_memory: Option<u64>,
    /// `kernel.unprivileged_bpf_disabled`, `None` where there is no such setting.
    pub unprivileged_bpf_disabled: Option<u8>,
}

/// Capabilities worth telling: what they are needed for is in `docs/requirements.md`.
const CAPABILITIES: [(&str, CapabilitySet); 5] = [
    ("BPF", CapabilitySet::BPF),
    ("PERFMON", CapabilitySet::PERFMON),
    ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("SYS_RESOURCE", CapabilitySet::SYS_RESOURCE),
];

impl Facts {
    /// Looks at this host. Loads, attaches and frees again one small BPF program for each thing the
    /// probes may use; takes some tenths of a second, more if the API server does not answer.
    ///
    /// Whatever cannot be found out is itself a fact: this does not fail.
    pub async fn gather(options: &FactsOptions) -> Facts {
        let cgroups = Trees::find(options.cgroup_root.as_deref());
        Facts {
            kernel: Kernel::running(),
            btf: Btf::read(),
            privileges: Privileges::of_this_process(),
            lockdown: lockdown(),
            trials: Trials::run(&cgroups, options.every_trial),
            pressure: cgroups.pressure(),
            kubernetes: match options.ask_kubernetes {
                true => Kubernetes::find(options.kubeconfig.as_deref(), options.kubernetes_timeout).await,
                false => Kubernetes::default(),
            },
            cgroups,
        }
    }
}

impl Kernel {
    fn running() -> Kernel {
        let uname = rustix::system::uname();
        Kernel {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
        }
    }

    /// The version in the release is this or a later one. Vendors carry changes back: a fact found by
    /// trial or in BTF goes before this.
    pub fn at_least(&self, major: u8, minor: u8) -> bool {
        self.release
            .parse()
            .is_ok_and(|running: KernelVersion| running >= KernelVersion::new(major, minor, 0))
    }
}

impl Privileges {
    fn of_this_process() -> Privileges {
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let memlock = getrlimit(Resource::Memlock);
        let status = Process::myself().and_then(|me| me.status()).ok();
        Privileges {
            uid: rustix::process::geteuid().as_raw(),
            capabilities: CAPABILITIES
                .iter()
                .filter(|(_, capability)| effective.contains(*capability))
                .map(|(name, _)| name.to_string())
                .collect(),
            user_namespace: std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_host(&map)),
            seccomp: status.is_some_and(|status| status.seccomp.is_some_and(|mode| mode != 0)),
            locked_memory: memlock.maximum.and(memlock.current),
            unprivileged_bpf_disabled: unprivileged_bpf_disabled(),
        }
    }

    /// Has this capability (`BPF`), by itself or within SYS_ADMIN, of which BPF and PERFMON are parts
    /// (5.8, a17b53c4a4b5 "bpf, capability: Introduce CAP_BPF").
    pub fn has(&self, capability: &str) -> bool {
        let named = |name: &str| self.capabilities.iter().any(|held| held == name);
        named(capability) || matches!(capability, "BPF" | "PERFMON") && named("SYS_ADMIN")
    }
}

/// A uid_map that maps every user id to itself.
fn is_host(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The state in brackets: `none [integrity] confidentiality`.
fn lockdown() -> Option<String> {
    let states = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    Some(states.split_once('[')?.1.split_once(']')?.0.to_string())
}

fn unprivileged_bpf_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?.trim().parse().ok()
}
