//! A container as a manifest has it: its arguments, environment, mounts, ports and probes, run on this machine in a network
//! namespace and a root of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::net::Netns;
use super::process::{Line, Running};

/// The one container of a pod's template, and what the kubelet would add.
pub struct Container<'a> {
    pub template: &'a Value,
    pub program: PathBuf,
    /// What the API server has in a field: `spec.nodeName`, `status.podIP`.
    pub field: &'a dyn Fn(&str) -> String,
    /// Where a volume is on this machine.
    pub volume: &'a dyn Fn(&Value) -> PathBuf,
    /// Mounts besides the manifest's: where it is, and where the container has it.
    pub mounts: Vec<(PathBuf, &'static str)>,
    /// Variables besides, or instead of, the manifest's.
    pub variables: Vec<(&'static str, String)>,
    /// `/etc/hosts`.
    pub hosts: String,
}

/// One that runs; dropping it ends it.
pub struct Pod {
    process: Option<Running>,
    _root: TempDir,
}

impl Pod {
    /// Asks it to end, and waits for that: how, and what it said.
    pub fn terminate(mut self) -> (ExitStatus, Vec<Line>) {
        let (status, lines, _) = self.process.take().expect("it runs").terminate();
        (status, lines)
    }
}

impl Drop for Pod {
    /// A test that waited in vain tells what it said.
    fn drop(&mut self) {
        let process = self.process.take().filter(|_| std::thread::panicking());
        process.iter().flat_map(Running::lines).for_each(|line| println!("  {}", line.text));
    }
}

impl Container<'_> {
    /// Starts it in this network; `confine` takes away from the program what that network's machine would not have.
    pub fn start(&self, at: &Netns, confine: impl FnOnce(&mut Command)) -> Pod {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", at.name)).args(["unshare", "--mount"]);
        command.args(["--propagation", "private", "sh", "-ec", &self.script(dir.path())]);
        let spec = &self.template["spec"]["containers"][0];
        // $0 of the script, then what is run in the root.
        command.arg("pod").args(texts(&spec["args"]));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin");
        for variable in list(&spec["env"]) {
            let name = variable["name"].as_str().expect("a name");
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().map(self.field);
            let value = variable["value"].as_str().map(str::to_owned).or(field);
            command.env(name, value.unwrap_or_else(|| panic!("where is {name} from?")));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        confine(&mut command);
        Pod { process: Some(Running::start(&mut command)), _root: dir }
    }

    /// Makes a root of the machine's programs with the container's mounts, and becomes the program in it.
    fn script(&self, dir: &Path) -> String {
        let (root, hosts) = (dir.join("root"), dir.join("hosts"));
        fs::create_dir(&root).expect("a directory");
        fs::write(&hosts, &self.hosts).expect("written");
        let mut mounts: Vec<(PathBuf, &str)> = self.mounts.clone();
        let spec = &self.template["spec"];
        for mount in list(&spec["containers"][0]["volumeMounts"]) {
            let volume = list(&spec["volumes"]).find(|v| v["name"] == mount["name"]).expect("its volume");
            mounts.push(((self.volume)(volume), mount["mountPath"].as_str().expect("a path")));
        }
        mounts.extend(["/usr", "/proc", "/sys", "/dev"].map(|own| (own.into(), own)));
        let root = root.display();
        let mut script = format!("mount -t tmpfs pod {root}\ncp -P /bin /lib /lib64 /sbin {root}\n");
        for (from, to) in mounts {
            script += &format!("mkdir -p {root}{to}\nmount --rbind {} {root}{to}\n", from.display());
        }
        let (hosts, program) = (hosts.display(), self.program.display());
        script += &format!(
            "mkdir -p {root}/etc {root}/tmp\ncp {hosts} {root}/etc/hosts\n: >{root}/etc/resolv.conf\n\
             : >{root}/program\nmount --bind {program} {root}/program\nexec chroot {root} /program \"$@\"\n"
        );
        script
    }
}

fn list(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().into_iter().flatten()
}

fn texts(of: &Value) -> impl Iterator<Item = &str> {
    list(of).filter_map(Value::as_str)
}

/// The ports of a template's container.
pub fn ports(template: &Value) -> Vec<u16> {
    list(&template["spec"]["containers"][0]["ports"])
        .map(|port| u16::try_from(port["containerPort"].as_u64().expect("a port")).expect("a port"))
        .collect()
}

/// Where the kubelet asks whether it is alive and ready: ports and paths.
pub fn probes(template: &Value) -> Vec<(u16, String)> {
    let container = &template["spec"]["containers"][0];
    let probe = |kind: &str| {
        let get = &container[kind]["httpGet"];
        let named = list(&container["ports"]).find(|port| port["name"] == get["port"]).expect("its port");
        let port = named["containerPort"].as_u64().expect("a port");
        (u16::try_from(port).expect("a port"), get["path"].as_str().expect("a path").to_owned())
    };
    ["livenessProbe", "readinessProbe"].map(probe).into()
}
