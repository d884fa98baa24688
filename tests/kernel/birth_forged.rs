//! A container of one pod says that it works for another pod, which is being born: by environment, arguments and its
//! programs' names, and by a cgroup of its own that it calls as the other pod's. It is older than the agent, and younger. A
//! container beside Kubernetes, a machine of systemd's and a user of the node without rights try the same.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command};

use crate::bed::cgroup::{Cgroup, cpu_tree};
use crate::bed::kernel_gossip;
use crate::bed::pod::Pod;
use crate::bed::process::Running;
use crate::kernel::birth::alone;
use serde_json::Value;

/// Calls of umask that each forged program makes.
const CALLS: u64 = 3_000;

/// A user of the node without rights.
const USER: u32 = 47_110;

/// A container of another pod, which waits until it is told to forge.
struct Forger {
    process: Child,
    start: std::path::PathBuf,
    _cgroup: Cgroup,
}

impl Forger {
    fn new(number: u32, dir: &Path, victim: &Pod) -> Forger {
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

    fn at(cgroup: &str, number: u32, dir: &Path, victim: &Pod) -> Forger {
        Forger::run(Cgroup::at(cgroup), None, "", number, dir, victim)
    }

    /// One of the node's users, in a cgroup outside every container. `more`: what it does beyond what all do.
    fn of_user(cgroup: Cgroup, more: &str, number: u32, dir: &Path, victim: &Pod) -> Forger {
        Forger::run(cgroup, Some(USER), more, number, dir, victim)
    }

    fn run(cgroup: Cgroup, user: Option<u32>, more: &str, number: u32, dir: &Path, victim: &Pod) -> Forger {
        let start = dir.join(format!("start-{number}"));
        let name = CString::new(start.to_str().expect("a path")).expect("no NUL");
        // SAFETY: a path that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        chown(&start, user, None).expect("the user's");
        for name in ["mount", "runc", "plugin", "containerd-shim-runc-v2", "conmon", "kubelet"] {
            // One that runs cannot be written; it is there then.
            let _ = fs::copy("/bin/sh", dir.join(name));
        }
        let calls = format!("i=0; while [ $i -lt {CALLS} ]; do umask 22; i=$((i+1)); done; exit 9");
        fs::write(dir.join("calls"), &calls).expect("a script");
        let script = format!(
            "read _ <start-{number}
             CNI_CONTAINERID=$ID CNI_COMMAND=ADD CNI_ARGS=K8S_POD_UID=$POD ./plugin -c '{calls}'
             ./mount -c '{calls}' /var/lib/kubelet/pods/$POD/volumes/x
             ./runc -c '{calls}' create $ID
             ./containerd-shim-runc-v2 -c '{calls}' -id $ID
             ./conmon -c '{calls}' -c $ID
             ./kubelet -c './mount calls /var/lib/kubelet/pods/$POD/volumes/x; :'
             {more}
             exit 0"
        );
        let mut shell = match user {
            // It enters its cgroup as root.
            Some(user) => {
                let mut shell = Command::new("setpriv");
                shell.args([&format!("--reuid={user}"), "--regid=65534", "--clear-groups", "/bin/sh"]);
                shell
            }
            None => Command::new("/bin/sh"),
        };
        shell.args(["-c", &script]).current_dir(dir).env("ID", &victim.id).env("POD", &victim.uid);
        Forger { process: cgroup.spawn(&mut shell, None), start, _cgroup: cgroup }
    }

    /// Lets it forge to the end.
    fn forge(&mut self) {
        fs::write(&self.start, "go\n").expect("it waits");
        assert!(self.process.wait().expect("its end").success());
    }
}

/// Nothing forged is in the victim's certificate.
fn is_as_it_was(victim: &Pod, agent: &mut Running) {
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
    let writes = certificate["kernelStats"]["cgroupWrites"].as_u64();
    assert!(writes < Some(CALLS), "{writes:?}");
}

#[test]
#[ignore = "needs runc and busybox"]
fn a_pod_cannot_write_anothers_certificate() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut victim = Pod::new(1);
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
    victim.run(&["sleep", "1000"]);
    is_as_it_was(&victim, &mut agent);
}

#[test]
#[ignore = "needs runc and busybox"]
fn a_user_without_rights_cannot_write_a_pods_certificate() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("for all to read");
    let mut victim = Pod::new(1);
    let session =
        |n| Cgroup::at(&format!("user.slice/user-{USER}.slice/session-{n}-{}.scope", std::process::id()));
    // As root asks it of a set-uid program; as root of its own user namespace; and a write to a file it may only read.
    let set_uid = dir.path().join("set-uid");
    fs::create_dir(&set_uid).expect("a directory");
    fs::copy("/bin/sh", set_uid.join("mount")).expect("a copy of the shell");
    fs::set_permissions(set_uid.join("mount"), fs::Permissions::from_mode(0o4755)).expect("set-uid");
    let target = dir.path().join(format!("pods/{}/volumes/x", victim.uid));
    fs::create_dir_all(&target).expect("a directory");
    let procs = cpu_tree().mount.join(&victim.path()[1..]).join("cgroup.procs");
    let more = format!(
        "./kubelet -c './set-uid/mount calls {0}; :'
         unshare --user --map-root-user --mount ./kubelet -c 'mount -t tmpfs tmpfs {0}; :'
         ./kubelet -c 'mount -t tmpfs tmpfs {0}; :'
         exec 3<{1}; i=0; while [ $i -lt {CALLS} ]; do echo >&3; i=$((i+1)); done 2>/dev/null",
        target.display(),
        procs.display()
    );
    let mut older = Forger::of_user(session(1), &more, 1, dir.path(), &victim);
    let mut agent = kernel_gossip();
    agent.args(["agent", "--output", "json"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let mut agent = Running::start(&mut agent);
    agent.says("births: working");
    agent.says("watching");
    let mut younger = Forger::of_user(session(2), &more, 2, dir.path(), &victim);
    // systemd gives each user a part of the cgroups. There it makes one called as the victim's, before the kubelet does.
    let service = Cgroup::at(&format!("user.slice/user-{USER}.slice/user@{USER}.service"));
    chown(service.dir(), Some(USER), None).expect("the user's");
    let mut mkdir = Command::new("setpriv");
    mkdir.args([&format!("--reuid={USER}"), "--regid=65534", "--clear-groups", "mkdir", "-p"]);
    mkdir.arg(service.dir().join(&victim.path()[1..]));
    assert!(mkdir.status().expect("setpriv").success());
    let like = Cgroup::at(&format!("{}{}/{}", service.path(), victim.path(), victim.id));
    let mut like = Forger::of_user(like, "", 3, dir.path(), &victim);
    victim.begin();
    for forger in [&mut older, &mut younger, &mut like] {
        forger.forge();
    }
    victim.run(&["sleep", "1000"]);
    is_as_it_was(&victim, &mut agent);
}
