//! A container of one pod says that it works for another pod, which is being born: by environment, arguments and its
//! programs' names, and by a cgroup of its own that it calls as the other pod's. It is older than the agent, and younger. A
//! container beside Kubernetes and a machine of systemd's try the same.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bed::bundle::lay_out;
use crate::bed::cgroup::Cgroup;
use crate::bed::kernel_gossip;
use crate::bed::process::Running;
use crate::kernel::birth::alone;
use serde_json::Value;

/// Calls of umask that each forged program makes.
const CALLS: u64 = 3_000;

/// A pod that is being born, with one container that runc makes.
struct Victim {
    uid: String,
    id: String,
    bundle: tempfile::TempDir,
    cgroup: Option<Cgroup>,
}

impl Victim {
    fn new() -> Victim {
        let uid = format!("00000001-2222-4333-8444-{:012x}", std::process::id());
        let id = format!("{:064x}", 0xabcd_0000_u64 + u64::from(std::process::id()));
        Victim { uid, id, bundle: tempfile::tempdir().expect("a directory"), cgroup: None }
    }

    fn path(&self) -> String {
        format!("/kubepods/besteffort/pod{}", self.uid)
    }

    /// The kubelet makes its cgroup.
    fn begin(&mut self) {
        self.cgroup = Some(Cgroup::at(&self.path()));
    }

    /// The runtime makes its container, which does nothing.
    fn run(&self) {
        lay_out(self.bundle.path(), &["sleep", "1000"], &format!("{}/{}", self.path(), self.id), |_| {});
        let bundle = self.bundle.path();
        // The container has what runc has as its output: nobody waits for its end.
        let runc = |command: &mut Command| {
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(status.expect("runc").success(), "{command:?}");
        };
        runc(Command::new("runc").args(["create", "--bundle"]).arg(bundle).arg(&self.id));
        runc(Command::new("runc").args(["start", &self.id]));
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).output();
        drop(self.cgroup.take());
        // runc makes the pod's cgroup in each other tree, and leaves it and those above. One with others in it stays.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with("/sys/fs/cgroup") {
                for path in [&*self.path(), "/kubepods/besteffort", "/kubepods"] {
                    let _ = fs::remove_dir(format!("{mount}{path}"));
                }
            }
        }
    }
}

/// A container of another pod, which waits until it is told to forge.
struct Forger {
    process: Child,
    start: std::path::PathBuf,
    _cgroup: Cgroup,
}

impl Forger {
    fn new(number: u32, dir: &Path, victim: &Victim) -> Forger {
        Forger::at(&Self::container(number), number, dir, victim)
    }

    /// The cgroup of a pod's container.
    fn container(number: u32) -> String {
        let uid = format!("{number:08x}-3333-4333-8444-{:012x}", std::process::id());
        format!("kubepods/besteffort/pod{uid}/{}", Self::id(number))
    }

    fn id(number: u32) -> String {
        format!("{:064x}", 0xbad0_0000_0000_u64 + (u64::from(number) << 32) + u64::from(std::process::id()))
    }

    fn at(cgroup: &str, number: u32, dir: &Path, victim: &Victim) -> Forger {
        let cgroup = Cgroup::at(cgroup);
        let start = dir.join(format!("start-{number}"));
        let name = CString::new(start.to_str().expect("a path")).expect("no NUL");
        // SAFETY: a path that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for name in ["mount", "runc", "plugin", "containerd-shim-runc-v2", "conmon"] {
            fs::copy("/bin/sh", dir.join(name)).expect("a copy of the shell");
        }
        let calls = format!("i=0; while [ $i -lt {CALLS} ]; do umask 22; i=$((i+1)); done; exit 9");
        let script = format!(
            "read _ <start-{number}
             CNI_CONTAINERID=$ID CNI_COMMAND=ADD CNI_ARGS=K8S_POD_UID=$POD ./plugin -c '{calls}'
             ./mount -c '{calls}' /var/lib/kubelet/pods/$POD/volumes/x
             ./runc -c '{calls}' create $ID
             ./containerd-shim-runc-v2 -c '{calls}' -id $ID
             ./conmon -c '{calls}' -c $ID
             exit 0"
        );
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).current_dir(dir).env("ID", &victim.id).env("POD", &victim.uid);
        Forger { process: cgroup.spawn(&mut shell, None), start, _cgroup: cgroup }
    }

    /// Lets it forge to the end.
    fn forge(&mut self) {
        fs::write(&self.start, "go\n").expect("it waits");
        assert!(self.process.wait().expect("its end").success());
    }
}

#[test]
#[ignore = "needs runc and busybox"]
fn a_pod_cannot_write_anothers_certificate() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut victim = Victim::new();
    let mut older = Forger::new(1, dir.path(), &victim);
    let mut agent = kernel_gossip();
    agent.args(["agent", "--output", "json"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let mut agent = Running::start(&mut agent);
    agent.says("births: working");
    agent.says("watching");
    let mut younger = Forger::new(2, dir.path(), &victim);
    victim.begin();
    // Called as the victim is, by who may make cgroups below its own; beside Kubernetes; and in a machine.
    let (pod, id) = (&victim.path()["/kubepods/".len()..], &victim.id);
    let elsewhere = [
        format!("{}/kubepods/{pod}/{id}", Forger::container(3)),
        format!("{}/{pod}", Forger::container(4)),
        format!("docker/{}", Forger::id(5)),
        format!("docker/{}/kubepods/{pod}/{id}", Forger::id(6)),
        format!("machine.slice/machine-kg-{}.scope/payload", std::process::id()),
    ];
    let elsewhere: Vec<_> = (3..)
        .zip(&elsewhere)
        .map(|(number, cgroup)| Forger::at(cgroup, number, dir.path(), &victim))
        .collect();
    older.forge();
    younger.forge();
    elsewhere.into_iter().for_each(|mut forger| forger.forge());
    victim.run();
    // By what it says whose it is: the victim's name is in the path of who calls its cgroup so.
    let of_victim = |text: &str| {
        let birth: Value = serde_json::from_str(text).unwrap_or_default();
        text.contains("\"kernel_gossip.birth\"") && birth["k8s.pod.uid"] == victim.uid.as_str()
    };
    let line = agent.line("the victim's birth", |l| of_victim(&l.text));
    let birth: Value = serde_json::from_str(&line.text).expect("JSON");
    let certificate = &birth["kernel_gossip.birth.certificate"];
    println!("{}", serde_json::to_string_pretty(certificate).expect("JSON"));
    assert_eq!((&certificate["outcome"], &certificate["failure"]), (&"complete".into(), &Value::Null));
    let phases: Vec<_> =
        certificate["phases"].as_array().expect("phases").iter().map(|p| &p["name"]).collect();
    for forged in ["network", "volumes"] {
        assert!(!phases.contains(&&forged.into()), "{forged}: {phases:?}");
    }
    let [container] = certificate["containers"].as_array().expect("containers").as_slice() else {
        panic!("{certificate}")
    };
    assert_eq!(container["id"], victim.id.as_str());
    let calls = &certificate["kernelStats"]["bySyscall"]["umask"];
    assert!(calls.as_u64().unwrap_or(0) < CALLS, "{calls} of {CALLS} each");
    assert!(certificate["kernelStats"]["totalSyscalls"].as_u64() > Some(100), "{certificate}");
}
