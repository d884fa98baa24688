//! A pod as CRI-O starts it, with both of the kubelet's cgroup drivers: real conmon and crun, and the test does what CRI-O
//! and the kubelet do around them. CRI-O itself is not a package of Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bed::bundle::lay_out;
use crate::bed::cgroup::{Version, cpu_tree};
use crate::bed::process::{Running, output};
use crate::bed::{kernel_gossip, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A pod on its way: its cgroup, and where its containers are kept.
struct Pod {
    uid: String,
    systemd: bool,
    storage: TempDir,
    containers: Vec<String>,
}

impl Pod {
    /// The kubelet makes its cgroup.
    fn new(number: u32, systemd: bool, storage: TempDir) -> Pod {
        let uid = format!("{number:08x}-2222-4333-8444-{:012x}", std::process::id());
        let pod = Pod { uid, systemd, storage, containers: Vec::new() };
        fs::create_dir_all(pod.dir()).expect("the pod's cgroup");
        pod
    }

    fn path(&self) -> String {
        match self.systemd {
            true => format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
                self.uid.replace('-', "_")
            ),
            false => format!("/kubepods/besteffort/pod{}", self.uid),
        }
    }

    fn dir(&self) -> PathBuf {
        cpu_tree().mount.join(&self.path()[1..])
    }

    fn cgroup(&self, prefix: &str, id: &str) -> String {
        format!("{}/{prefix}-{id}{}", self.path(), if self.systemd { ".scope" } else { "" })
    }

    /// CRI-O has a container made by conmon, which has it made by crun; then it has crun start it. Its first process.
    fn run(&mut self, kind: &str, name: &str, arguments: &[&str]) -> u32 {
        let id = format!("{:032x}{:032x}", self.containers.len() + 1, std::process::id());
        let root = self.storage.path();
        let userdata = root.join("overlay-containers").join(&id).join("userdata");
        fs::create_dir_all(&userdata).expect("a directory");
        lay_out(&userdata, arguments, &self.cgroup("crio", &id), |config| {
            config["annotations"] = json!({
                "io.kubernetes.cri-o.ContainerType": kind,
                "io.kubernetes.container.name": name,
                "io.kubernetes.pod.name": "web",
                "io.kubernetes.pod.namespace": "shop",
                "io.kubernetes.pod.uid": self.uid,
            });
        });
        let monitors = cpu_tree().mount.join(&self.cgroup("crio-conmon", &id)[1..]);
        fs::create_dir(&monitors).expect("conmon's cgroup");
        for dir in ["exits", "sockets"] {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        let pid_file = userdata.join("pidfile");
        let mut conmon = Command::new("sh");
        conmon.args(["-c", "echo $$ >$0/cgroup.procs && exec conmon \"$@\""]).arg(&monitors);
        conmon.arg("-b").arg(&userdata).args(["-c", &id, "-u", &id, "-n", name, "-r", "/usr/bin/crun"]);
        conmon.arg("-p").arg(&pid_file).arg("-l").arg(userdata.join("ctr.log"));
        conmon.arg("--exit-dir").arg(root.join("exits")).arg("--socket-dir-path").arg(root.join("sockets"));
        output(&mut conmon);
        self.containers.push(id.clone());
        let pid = until("crun has made it", || fs::read_to_string(&pid_file).ok()?.parse().ok());
        output(Command::new("crun").args(["start", &id]));
        pid
    }

    /// Its cgroups, its own too.
    fn cgroups(&self) -> usize {
        fn below(dir: &Path) -> usize {
            let entries = fs::read_dir(dir).expect("a cgroup").flatten();
            entries.filter(|e| e.path().is_dir()).map(|e| below(&e.path())).sum::<usize>() + 1
        }
        below(&self.dir())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for id in &self.containers {
            let _ = Command::new("crun").args(["delete", "--force", id]).output();
        }
        let entries = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        for dir in entries.map(|e| e.path()).filter(|p| p.is_dir()) {
            let gone = || fs::remove_dir(&dir).is_ok() || !dir.exists();
            until("conmon ends with its container", || gone().then_some(()));
        }
        let _ = fs::remove_dir(self.dir());
    }
}

#[test]
#[ignore = "needs conmon, crun, runc (for its spec) and busybox"]
fn a_pod_of_crio_is_certified() {
    if cpu_tree().version == Version::V1 {
        println!("not here: crun runs nothing where cgroup v1 and v2 are mixed; scripts/test vm runs this");
        return;
    }
    for (number, systemd) in [(1, false), (2, true)] {
        let storage = tempfile::tempdir().expect("a directory");
        let mut agent = kernel_gossip();
        agent.args(["agent", "--output", "json", "--runtime-root"]).arg(storage.path());
        let mut agent = Running::start(agent.env_remove("KUBECONFIG").env("HOME", "/nonexistent"));
        agent.says("births: working");
        agent.says("watching");
        let mut pod = Pod::new(number, systemd, storage);
        let sandbox = pod.run("sandbox", "POD", &["sleep", "1000"]);
        let web = pod.run("container", "web", &["httpd", "-f", "-p", "8080"]);
        assert_ne!(sandbox, web);
        let line = agent.line("the birth", |l| l.text.contains("\"kernel_gossip.birth\""));
        let birth: Value = serde_json::from_str(&line.text).expect("JSON");
        let certificate = &birth["kernel_gossip.birth.certificate"];
        println!("{} {}", pod.path(), serde_json::to_string_pretty(certificate).expect("JSON"));
        assert_eq!(birth["k8s.pod.uid"], pod.uid.as_str());
        assert_eq!(birth["kernel_gossip.birth.outcome"], "complete");

        let phases = birth["kernel_gossip.birth.phase.names"].as_array().expect("phases");
        for phase in ["cgroup", "sandbox", "create", "start", "listen"] {
            assert!(phases.contains(&phase.into()), "{phase}: {phases:?}");
        }
        let containers = certificate["containers"].as_array().expect("containers");
        let [container] = containers.as_slice() else { panic!("the sandbox is none: {containers:?}") };
        assert_eq!((&container["name"], &container["port"]), (&"web".into(), &8080.into()));
        let mounts = fs::read_to_string(format!("/proc/{web}/mountinfo")).expect("mountinfo").lines().count();
        // Beside a guest's root is its initramfs, whose mounts are in the namespace and in nobody's sight.
        assert!(container["mounts"].as_u64() >= Some(mounts as u64), "{mounts}: {container}");

        let stats = &certificate["kernelStats"];
        assert_eq!(stats["cgroupsCreated"], pod.cgroups());
        // runc's spec asks for those of mnt, uts, ipc, pid, net and, with v2, cgroup, for each of the two.
        let kinds = stats["byNamespace"].as_object().expect("kinds");
        assert_eq!(kinds["mnt"], 2, "{kinds:?}");
        assert_eq!(kinds["net"], 2, "{kinds:?}");
        let monitors = steps(certificate, "conmon");
        assert_eq!(monitors.len(), 2, "the monitors are the runtime's: {monitors:?}");
        // crun executes a sealed copy of itself: that is no other `create`.
        for what in ["crun create", "crun start"] {
            assert_eq!(steps(certificate, what).len(), 2, "{what}");
        }
        let creates = steps(certificate, "makes the container's cgroup");
        let of = |step: &Value| step["timestampMs"].as_f64().expect("a time");
        for phase in
            certificate["phases"].as_array().expect("phases").iter().filter(|p| p["name"] == "create")
        {
            let (from, length) = (phase["startMs"].as_f64().unwrap(), phase["durationMs"].as_f64().unwrap());
            let within = |step: &&Value| (from..=from + length).contains(&of(step));
            assert_eq!(creates.iter().copied().filter(within).count(), 1, "{phase}: {creates:?}");
        }
        assert_eq!(certificate["missing"].as_array().map(Vec::len), Some(1), "{}", certificate["missing"]);
    }
}

/// What the runtime did whose words begin so.
fn steps<'a>(certificate: &'a Value, what: &str) -> Vec<&'a Value> {
    let timeline = certificate["timeline"].as_array().expect("a timeline");
    let of = |s: &&Value| {
        s["actor"] == "runtime" && s["action"].as_str().is_some_and(|action| action.starts_with(what))
    };
    timeline.iter().filter(of).collect()
}
