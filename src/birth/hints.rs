//! What a program's name, arguments and environment say about whom it works for. Pure.

use crate::attribution::paths::PodId;
use crate::kernel::recorder::Segment;

/// What a segment says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub role: Role,
    /// The container it works for, as the runtime names it: 64 hex digits with Kubernetes.
    pub container: Option<String>,
    pub pod: Option<PodId>,
}

/// The part a program plays in a birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// containerd's shim, or CRI-O's conmon.
    Monitor,
    /// runc, crun or their like.
    Runtime(Verb),
    /// A CNI plugin, with the command in `CNI_COMMAND`.
    Cni { add: bool },
    /// The kubelet's `mount` of a volume, and its like.
    Volume,
    /// None of these: it plays the part of whoever started it.
    #[default]
    Other,
}

/// What a runtime was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Start,
    /// Both at once.
    Run,
    /// Its own first process within the container.
    Init,
    /// Another program in a container that runs.
    Exec,
    /// `state`, `kill`, `delete` and what else there is.
    Else,
}

/// Reads a segment that was begun by exec; one begun otherwise says nothing.
pub fn read(segment: &Segment) -> Hints {
    let args: Vec<&str> = segment.args.iter().map(String::as_str).collect();
    if let Some(container) = segment.env.get("CNI_CONTAINERID") {
        let pod = segment.env.get("CNI_ARGS").and_then(|args| {
            args.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_UID=")).and_then(PodId::parse)
        });
        let add = segment.env.get("CNI_COMMAND").is_some_and(|c| c == "ADD");
        return Hints { role: Role::Cni { add }, container: Some(container.clone()), pod };
    }
    let name = program(segment);
    if name.starts_with("containerd-shim") {
        return Hints { role: Role::Monitor, container: option(&args, &["-id", "--id"]), pod: None };
    }
    if name == "conmon" || name == "conmonrs" {
        // Of a program that is executed in a container that is there it is the monitor too.
        let exec = args.iter().any(|a| matches!(*a, "-e" | "--exec" | "--exec-attach"));
        let role = if exec { Role::Runtime(Verb::Exec) } else { Role::Monitor };
        return Hints { role, container: option(&args, &["-c", "--cid"]), pod: None };
    }
    if is_runtime(segment, &name) {
        return runtime(&args, segment.args_cut);
    }
    // Where it is mounted is said last. What is mounted, and how, is in the words of whoever wrote the pod.
    let target = args.last().filter(|_| matches!(&*name, "mount" | "umount") && !segment.args_cut);
    let pod = target.and_then(|target| pod_directory(target));
    Hints { role: if pod.is_some() { Role::Volume } else { Role::Other }, container: None, pod }
}

/// A process of this name may be the kubelet: alone, or with others in one process.
pub fn is_kubelet(comm: &str) -> bool {
    matches!(comm, "kubelet" | "hyperkube" | "kubelite") || comm.starts_with("k3s")
}

/// The name of the program: the executable file's, else what execve was given, else the process's.
pub fn program(segment: &Segment) -> String {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    segment
        .file
        .clone()
        .or_else(|| segment.exe.as_deref().map(base))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| segment.comm.clone())
}

/// runc runs from a sealed copy of itself in memory, which it names `runc_cloned:/proc/self/exe`.
fn is_runtime(segment: &Segment, name: &str) -> bool {
    const RUNTIMES: [&str; 5] = ["runc", "crun", "youki", "docker-runc", "nvidia-container-runtime"];
    let of_memory = |r: &str| name.strip_prefix("memfd:").is_some_and(|n| n.starts_with(r));
    let called = segment.args.first().map(|a| a.rsplit('/').next().unwrap_or_default());
    RUNTIMES.iter().any(|r| name == *r || of_memory(r))
        || name.starts_with("memfd:") && called.is_some_and(|c| RUNTIMES.contains(&c))
}

fn runtime(args: &[&str], cut: bool) -> Hints {
    let verb_at = args.iter().skip(1).position(|a| verb(a).is_some()).map(|at| at + 1);
    let Some(at) = verb_at else {
        return Hints { role: Role::Runtime(Verb::Else), ..Hints::default() };
    };
    let verb = verb(args[at]).unwrap_or(Verb::Else);
    // `kill <id> 9`, but `create --bundle <dir> <id>`: the options before the id have values in their own words.
    let last = args[at + 1..].last().filter(|a| !a.starts_with('-') && !cut).copied();
    let container = match verb {
        Verb::Init => None,
        Verb::Create | Verb::Start | Verb::Run | Verb::Exec => last,
        Verb::Else => args[at + 1..].iter().find(|a| !a.starts_with('-')).copied(),
    };
    let bundle = option(args, &["--bundle", "-b"]);
    let of_bundle = || {
        bundle
            .as_deref()
            .and_then(|b| b.trim_end_matches('/').rsplit('/').find(|s| is_id(s)))
            .map(str::to_owned)
    };
    let container = container.map(str::to_owned).or_else(of_bundle);
    Hints { role: Role::Runtime(verb), container, pod: None }
}

fn verb(arg: &str) -> Option<Verb> {
    match arg {
        "create" => Some(Verb::Create),
        "start" => Some(Verb::Start),
        "run" => Some(Verb::Run),
        "init" => Some(Verb::Init),
        "exec" => Some(Verb::Exec),
        "state" | "kill" | "delete" | "pause" | "resume" | "update" | "ps" | "events" | "list"
        | "features" | "checkpoint" | "restore" => Some(Verb::Else),
        _ => None,
    }
}

/// The value of the first of these options, as `-id X` or `-id=X`.
fn option(args: &[&str], names: &[&str]) -> Option<String> {
    args.iter().enumerate().find_map(|(at, arg)| match arg.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
        _ if names.contains(arg) => args.get(at + 1).map(|v| (*v).to_owned()),
        _ => None,
    })
}

/// The pod of `…/pods/<uid>/volumes/…`, where the kubelet keeps what it mounts for a pod.
fn pod_directory(arg: &str) -> Option<PodId> {
    let (_, rest) = arg.split_once("/pods/")?;
    let (uid, below) = rest.split_once('/')?;
    (below.starts_with("volume") || below.starts_with("plugins")).then(|| PodId::parse(uid)).flatten()
}

fn is_id(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::birth::testdata::exec;

    const ID: &str = "47b78268104a1bdd76bf17cc2663859935cb749077de2ec48f39bce98c6e3122";
    const UID: &str = "d341e8db-112f-4371-804f-3616d814d3d6";

    fn of(command: &str) -> (Role, Option<String>) {
        let hints = read(&exec(1, None, command));
        (hints.role, hints.container)
    }

    #[test]
    fn containerd_and_runc() {
        let id = Some(ID.to_string());
        for command in [
            format!(
                "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id {ID} start"
            ),
            format!("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id {ID} -address /run/c.sock"),
            format!("containerd-shim-runc-v2 --namespace k8s.io --id={ID}"),
        ] {
            assert_eq!(of(&command), (Role::Monitor, id.clone()), "{command}");
        }
        let run = format!(
            "runc --root /run/containerd/runc/k8s.io --log /run/x/{ID}/log.json --log-format json --systemd-cgroup"
        );
        let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}");
        for (rest, verb) in [
            (format!("create --bundle {bundle} --pid-file {bundle}/init.pid {ID}"), Verb::Create),
            (format!("start {ID}"), Verb::Start),
            (format!("exec --process /tmp/p --detach --pid-file /x {ID}"), Verb::Exec),
            (format!("delete --force {ID}"), Verb::Else),
            (format!("kill --all {ID} 9"), Verb::Else),
        ] {
            assert_eq!(of(&format!("{run} {rest}")), (Role::Runtime(verb), id.clone()), "{rest}");
        }
        assert_eq!(of("/proc/self/exe init"), (Role::Other, None), "any program may be called so");
        let mut init = exec(1, None, "runc init");
        init.file = Some("memfd:runc_cloned:/proc/self/exe".into());
        assert_eq!(read(&init).role, Role::Runtime(Verb::Init));
        assert_eq!(of("runc run t"), (Role::Runtime(Verb::Run), Some("t".into())));
    }

    #[test]
    fn arguments_that_were_cut_name_the_container_by_its_bundle() {
        let command = format!("runc create --bundle /run/x/{ID} --pid-file /run/x/{ID}/init.p");
        let mut cut = exec(1, None, &command);
        cut.args_cut = true;
        assert_eq!(read(&cut).container.as_deref(), Some(ID));
    }

    #[test]
    fn crio_and_crun() {
        let conmon = format!(
            "/usr/bin/conmon -b /run/containers/storage/overlay-containers/{ID}/userdata -c {ID} --exit-dir /var/run/crio/exits -n k8s_web -r /usr/bin/crun -u {ID} -s"
        );
        assert_eq!(of(&conmon), (Role::Monitor, Some(ID.into())));
        let crun = format!(
            "/usr/bin/crun --systemd-cgroup --root=/run/crun create --bundle /run/containers/storage/overlay-containers/{ID}/userdata --pid-file /x/pidfile {ID}"
        );
        assert_eq!(of(&crun), (Role::Runtime(Verb::Create), Some(ID.into())));
    }

    #[test]
    fn cni_and_volumes() {
        let mut plugin = exec(1, None, "/opt/cni/bin/bridge");
        plugin.env.insert("CNI_CONTAINERID".into(), ID.into());
        plugin.env.insert("CNI_COMMAND".into(), "ADD".into());
        plugin.env.insert(
            "CNI_ARGS".into(),
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_UID={UID}"),
        );
        let expected = Hints {
            role: Role::Cni { add: true },
            container: Some(ID.into()),
            pod: Some(PodId::Uid(UID.into())),
        };
        assert_eq!(read(&plugin), expected);
        let mount = format!(
            "mount -t tmpfs -o size=1G tmpfs /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~projected/kube-api-access-x"
        );
        let hints = read(&exec(1, None, &mount));
        assert_eq!((hints.role, hints.pod), (Role::Volume, Some(PodId::Uid(UID.into()))));
        assert_eq!(read(&exec(1, None, &format!("cat /pods/{UID}/etc"))), Hints::default());
    }

    #[test]
    fn what_only_looks_like_a_runtime_is_none() {
        for command in ["vim runc create x", "/bin/sh -c runc", "bash"] {
            assert_eq!(of(command), (Role::Other, None), "{command}");
        }
        assert_eq!(of("runc --version").0, Role::Runtime(Verb::Else));
    }
}
