//! Looks for who was asked for: what the agent would know, from one walk of the cgroup trees, the runtime's files and one
//! question to the API server.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use kube::Client;
use procfs::process::{Process, all_processes};
use procfs::{ProcError, ProcResult};

use super::process::OfProcess;
use super::{Answer, CgroupId, Found, Owner, Unknown, WhoArgs, whispers};
use crate::attribution::bundle::{Bundles, Miss};
use crate::attribution::paths;
use crate::attribution::pods::PodIndex;
use crate::attribution::processes::{Membership, Processes};
use crate::attribution::{AttributionOptions, Attributor, Workload, WorkloadKind, watch};
use crate::kernel::cgroups::{self, Roots, name};
use crate::kernel::{CgroupChange, CgroupKey, Hierarchy, Reading};
use crate::plain;
use crate::sinks::points;

/// How long the API server may take.
const API_WITHIN: Duration = Duration::from_secs(3);

/// The shortest part of a container's id that stands for it, as Docker and crictl print it.
const SHORT_ID: usize = 12;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Process(i32),
    Path(&'a str),
    Id(u64),
    Name(&'a str),
}

impl Asked<'_> {
    fn parse(what: &str) -> Result<Asked<'_>> {
        if what.trim().is_empty() {
            bail!("nothing is asked for: give a process id, a cgroup or a pod");
        }
        if what.starts_with('/') {
            return Ok(Asked::Path(what));
        }
        if let Some(id) = what.strip_prefix("cgroup:") {
            let id = id
                .parse()
                .map_err(|_| anyhow::anyhow!("{what:?}: cgroup: wants the cgroup's id, a number"))?;
            return Ok(Asked::Id(id));
        }
        let number = what.bytes().all(|b| b.is_ascii_digit()) && what.len() < SHORT_ID;
        match what.parse() {
            Ok(pid) if number => Ok(Asked::Process(pid)),
            _ if number => bail!("there is no process {what}: process ids end at 4194304"),
            // A container's id as the API has it: containerd://<id>.
            _ => Ok(Asked::Name(what.split_once("://").map_or(what, |(_, id)| id))),
        }
    }
}

/// What there is on this node.
struct Node {
    roots: Roots,
    attributor: Attributor,
    processes: Processes,
    bundles: Bundles,
    /// Why there is no answer of the API server.
    api: Option<Unknown>,
    client: Option<Client>,
    name: Result<String, String>,
    keys: HashMap<CgroupKey, String>,
}

/// # Errors
/// There is none such on this node, or what was asked for is nothing that could be.
pub async fn answer(args: &WhoArgs) -> Result<Answer> {
    let what = args.what.as_str();
    let asked = Asked::parse(what)?;
    // Read first: it may not live for long.
    let process = match asked {
        Asked::Process(pid) => Some(OfProcess::read(pid).map_err(|error| no_process(pid, &error))?),
        _ => None,
    };
    let mut node = Node::look(args, process.as_ref().map(|(_, memberships, _)| memberships.as_slice())).await;
    let mut answer = Answer { asked: plain::clipped(what, 4096), ..Answer::default() };
    answer.node = node.name.clone().ok();
    if let Err(why) = &node.name {
        answer.unknown.push(Unknown { what: "the node's name", why: why.clone(), what_to_do: None });
    }
    let workloads = match asked {
        Asked::Process(_) => node.of_process(process, &mut answer),
        Asked::Path(path) => vec![node.at(path)?],
        Asked::Id(id) => node.by_id(id)?,
        Asked::Name(name) => node.by_name(name)?,
    };
    let mut list = !matches!(asked, Asked::Process(_));
    if list && !in_first_pid_namespace() {
        list = false;
        answer.unknown.push(Unknown {
            what: "processes",
            why: "this program's /proc shows those of its own PID namespace alone".into(),
            what_to_do: Some("run it on the node, or in a pod with hostPID"),
        });
    }
    if let Some(client) = node.client.take() {
        answer.whispers = whispers::of(client, &workloads, API_WITHIN, &mut answer.unknown).await;
    }
    let mut of = if list { node.processes_of(&workloads) } else { HashMap::new() };
    for who in workloads {
        let mut found = node.found(&who);
        if list && who.kind != WorkloadKind::Pod {
            let all = of.remove(who.cgroup.as_str()).unwrap_or_default();
            found.process_count = Some(all.len());
            found.processes = all.into_iter().take(Found::PROCESSES).collect();
        }
        node.note_unknown(&who, &mut answer.unknown);
        answer.workloads.push(found);
    }
    Ok(answer)
}

/// /proc shows all processes. (The first namespace's inode number is fixed: PROC_PID_INIT_INO in the kernel's
/// `include/linux/proc_ns.h`.)
fn in_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

fn no_process(pid: i32, error: &ProcError) -> anyhow::Error {
    match error {
        ProcError::NotFound(_) => anyhow::anyhow!("there is no process {pid} (any more)"),
        error => anyhow::anyhow!("process {pid} cannot be read: {error}"),
    }
}

impl Node {
    /// `of`: where the process that was asked for is, in cgroups that may be gone by now.
    async fn look(args: &WhoArgs, of: Option<&[Membership]>) -> Node {
        let roots = Roots::find(args.host.cgroup_root.as_deref());
        let processes = Processes::new();
        let mut reading = Reading::default();
        let mut keys = HashMap::new();
        let mut present = |cgroup: CgroupKey, path: &str| {
            keys.insert(cgroup, path.to_owned());
            reading.changes.push(CgroupChange::Present { cgroup, path: path.to_owned() });
        };
        for (hierarchy, root) in roots.trees() {
            if let Ok(root) = fs::metadata(root) {
                present(CgroupKey { hierarchy, id: root.ino() }, "/");
            }
        }
        cgroups::each(&roots, &mut present);
        // Its trees may not be mounted here, or its cgroup removed around it.
        for (n, path) in of.into_iter().flatten().map(|m| m.path.as_str()).enumerate() {
            if !processes.namespaced {
                let cgroup = CgroupKey { hierarchy: Hierarchy::V1Memory, id: n as u64 };
                reading.changes.push(CgroupChange::Present { cgroup, path: path.to_owned() });
            }
        }
        let node = watch::node_name(args.node_name.as_deref()).map_err(|e| e.to_string());
        let (pods, api) = match ask(args, &node).await {
            Ok((client, pods)) => (pods, Ok(client)),
            Err(why) => (PodIndex::default(), Err(why)),
        };
        let (client, api) = (api.as_ref().ok().cloned(), api.err());
        let options = AttributionOptions {
            runtime_roots: args.host.runtime_root.clone(),
            ..AttributionOptions::default()
        };
        let mut attributor = Attributor::new(options);
        attributor.attribute(&reading, &pods);
        reading.changes.clear();
        // It asks the runtime about 256 containers a reading.
        for _ in 0..attributor.living().count() / 256 {
            attributor.attribute(&reading, &pods);
        }
        let bundles = Bundles::new(&args.host.runtime_root);
        Node { roots, attributor, processes, bundles, api, client, name: node, keys }
    }

    fn of_process(
        &self,
        process: Option<(OfProcess, Vec<Membership>, Process)>,
        answer: &mut Answer,
    ) -> Vec<Arc<Workload>> {
        let Some((mut of, memberships, process)) = process else { return Vec::new() };
        if of.look_closer(&process, &memberships).is_err() {
            // What the kernel refuses and what is no longer there are one error to the library.
            let (why, what_to_do) = match process.is_alive() {
                true => (
                    "they may not be read",
                    Some("run as root, or as the user whose process it is; in a container with SYS_PTRACE"),
                ),
                false => ("the process has ended", None),
            };
            let why = why.to_owned();
            answer.unknown.push(Unknown { what: "namespaces", why, what_to_do });
        }
        let who = self.processes.of(&memberships, &self.attributor);
        if who.is_none() {
            answer.unknown.push(self.no_workload());
        }
        answer.process = Some(of);
        who.into_iter().collect()
    }

    fn no_workload(&self) -> Unknown {
        let (why, what_to_do) = match self.processes.namespaced {
            true => (
                "/proc tells its cgroup relative to this program's own cgroup namespace, which hides the names above",
                "run it on the host, or in a pod whose agent shares the host's cgroup namespace",
            ),
            false => (
                "its cgroup is in no tree that is mounted here",
                "mount the host's /sys/fs/cgroup and name the place by --cgroup-root",
            ),
        };
        Unknown { what: "what it belongs to", why: why.to_owned(), what_to_do: Some(what_to_do) }
    }

    /// The workload of a cgroup, by its path in the tree or in the file system, with the bytes of its names or as shown.
    fn at(&self, path: &str) -> Result<Arc<Workload>> {
        // As the file system has it: cgroup v1 has links (cpu -> cpu,cpuacct), and people write `..`.
        let real = fs::canonicalize(path).ok();
        let roots: Vec<PathBuf> =
            self.roots.trees().map(|(_, root)| fs::canonicalize(&root).unwrap_or(root)).collect();
        let below = |path: &Path| -> Option<String> {
            let all = roots.iter().filter_map(|root| path.strip_prefix(root).ok()?.to_str());
            all.min_by_key(|rest| rest.len()).map(|rest| format!("/{rest}"))
        };
        let within = real.as_deref().and_then(below).or_else(|| below(Path::new(path)));
        let tidy = within.as_deref().unwrap_or(path).trim_end_matches('/');
        let tidy = if tidy.is_empty() { "/" } else { tidy };
        let shown = [tidy.to_owned(), name::text(tidy.as_bytes()).into_owned()];
        let there = shown.iter().find(|path| self.keys.values().any(|known| known == *path));
        let who = there.and_then(|path| self.attributor.by_path(path));
        who.ok_or_else(|| anyhow::anyhow!("there is no cgroup {:?} in {}", shown[1], self.trees()))
    }

    fn by_id(&self, id: u64) -> Result<Vec<Arc<Workload>>> {
        // v1 and v2 number theirs on their own: one number may be two.
        let paths = self.keys.iter().filter(|(key, _)| key.id == id).map(|(_, path)| path);
        let mut found: Vec<_> = paths.filter_map(|path| self.attributor.by_path(path)).collect();
        found.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
        found.dedup_by(|a, b| a.cgroup == b.cgroup);
        match found.is_empty() {
            true => bail!("there is no cgroup with the id {id} in {}", self.trees()),
            false => Ok(found),
        }
    }

    /// Everything on this node that is called like this: pods with their containers, containers, units.
    fn by_name(&self, name: &str) -> Result<Vec<Arc<Workload>>> {
        let called = |who: &&Arc<Workload>| {
            let is = |text: &Option<String>| text.as_deref() == Some(name);
            let id = who.container_id.as_deref().unwrap_or_default();
            let pod = name.split_once('/').is_some_and(|(namespace, pod)| {
                who.namespace.as_deref() == Some(namespace) && who.pod.as_deref() == Some(pod)
            });
            // A machine's unit is called as the machine (`machine-web.scope` is `web`).
            let unit = who.kind == WorkloadKind::Unit && who.cgroup.rsplit('/').next() == Some(name);
            unit || is(&who.pod)
                || is(&who.pod_uid)
                || is(&who.unit)
                || pod
                || who.label() == name
                || name.len() >= SHORT_ID && id.starts_with(name)
        };
        let mut found: Vec<_> = self.attributor.living().filter(called).cloned().collect();
        if found.is_empty() {
            let hint = match &self.api {
                Some(_) => "; without the API server pods are known by their containers here alone",
                None => "; another node's pods are found there",
            };
            let node = self.name.as_deref().unwrap_or("this machine");
            bail!(
                "nothing on {node} is called {:?}: no pod, container or unit{hint}",
                plain::clipped(name, 253)
            );
        }
        // The pod, then its containers by their names, then its sandbox.
        let rank = |who: &Workload| match who.kind {
            WorkloadKind::Pod => 0,
            WorkloadKind::Sandbox => 2,
            _ => 1,
        };
        found.sort_by(|a, b| {
            (&a.namespace, &a.pod, rank(a), a.label(), &a.cgroup).cmp(&(
                &b.namespace,
                &b.pod,
                rank(b),
                b.label(),
                &b.cgroup,
            ))
        });
        Ok(found)
    }

    /// The living processes of these, by the workload's cgroup. One that ends meanwhile is left out.
    fn processes_of(&self, workloads: &[Arc<Workload>]) -> HashMap<String, Vec<OfProcess>> {
        let mut all: HashMap<String, Vec<OfProcess>> = HashMap::new();
        let Ok(processes) = all_processes() else { return all };
        for process in processes.filter_map(ProcResult::ok) {
            let Ok((of, memberships, _)) = OfProcess::read(process.pid) else { continue };
            let Some(who) = self.processes.of(&memberships, &self.attributor) else { continue };
            if workloads.iter().any(|wanted| wanted.cgroup == who.cgroup) {
                all.entry(who.cgroup.clone()).or_default().push(of);
            }
        }
        all
    }

    fn found(&self, who: &Workload) -> Found {
        let plain = |text: &Option<String>| text.as_deref().map(|text| plain::made_plain(text).into_owned());
        let ids = self.roots.trees().filter_map(|(hierarchy, root)| {
            let tree = if hierarchy == Hierarchy::V1Cpu { "cpu" } else { "unified" };
            let id = fs::metadata(name::below(&root, &who.cgroup)).ok()?.ino();
            Some(CgroupId { tree, id })
        });
        Found {
            kind: points::kind(who.kind),
            name: plain::made_plain(&who.label()).into_owned(),
            namespace: plain(&who.namespace),
            pod: plain(&who.pod),
            pod_uid: who.pod_uid.clone(),
            container: plain(&who.container),
            container_id: who.container_id.clone(),
            owner: who.owner.as_ref().map(|(kind, name)| Owner {
                kind: plain::made_plain(kind).into_owned(),
                name: plain::made_plain(name).into_owned(),
            }),
            unit: plain(&who.unit),
            cpu_request: who.cpu_request,
            cpu_limit: who.cpu_limit,
            confirmed: who.confirmed,
            cgroup: who.cgroup.clone(),
            cgroup_ids: ids.collect(),
            processes: Vec::new(),
            process_count: None,
        }
    }

    /// Says of what should have more names why it has not.
    fn note_unknown(&mut self, who: &Workload, unknown: &mut Vec<Unknown>) {
        let mut note = |what, why: String, what_to_do| {
            let new = Unknown { what, why, what_to_do };
            if !unknown.contains(&new) {
                unknown.push(new);
            }
        };
        let in_pod = who.pod.is_some() || who.pod_uid.is_some() || paths::classify(&who.cgroup).pod.is_some();
        let named = if in_pod { who.pod.is_some() } else { who.unit.is_some() };
        if let Some(id) = who.container_id.as_deref().filter(|_| !named) {
            let look =
                "`kernel-gossip check` lists the directories of runtimes; name another by --runtime-root";
            match self.bundles.look_up(id) {
                Err(Miss::Absent) => {
                    note("names", "no runtime here has files of this container".into(), Some(look))
                }
                Err(Miss::Unreadable(why)) => note("names", plain::made_plain(&why).into_owned(), Some(look)),
                Ok(_) => note("names", "the runtime's files do not name this container".into(), None),
            }
        }
        if paths::classify(&who.cgroup).unknown {
            let why = "its cgroup's path looks like a pod's or a container's, but is of no layout known";
            note("what it is", why.into(), Some("please report the path"));
        }
        if in_pod && !who.confirmed {
            match &self.api {
                Some(Unknown { what, why, what_to_do }) => note(what, why.clone(), *what_to_do),
                None => {
                    let node = self.name.as_deref().unwrap_or_default();
                    let why = format!("the API server has no such pod on the node {node}");
                    note(
                        "owner, request and limit",
                        why,
                        Some("if there should be, give its name by --node-name"),
                    );
                }
            }
        }
    }

    /// The trees that were looked through.
    fn trees(&self) -> String {
        let all: Vec<_> = self.roots.trees().map(|(_, root)| root.display().to_string()).collect();
        match all.is_empty() {
            true => "any cgroup tree: none is mounted here; name the place by --cgroup-root".to_owned(),
            false => all.join(", "),
        }
    }
}

/// The way to the API server, and the node's pods; why they are not known.
async fn ask(args: &WhoArgs, node: &Result<String, String>) -> Result<(Client, PodIndex), Unknown> {
    let missing = |why: String, what_to_do| Unknown { what: "owner, request and limit", why, what_to_do };
    let set = "nothing, unless this is a Kubernetes node: then set KUBECONFIG or run it in the agent's pod";
    let client = watch::client(args.host.kubeconfig.as_deref()).await;
    let client = client.map_err(|e| missing(e.to_string(), Some(set)))?;
    let node = node.as_ref().map_err(|why| missing(why.clone(), None))?;
    let pods = watch::list(client.clone(), node, API_WITHIN).await.map_err(|why| missing(why, None))?;
    Ok((client, pods))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_by_its_look() {
        let parse = |what| Asked::parse(what).expect("good");
        assert_eq!(parse("4711"), Asked::Process(4711));
        assert_eq!(parse("/system.slice/a.service"), Asked::Path("/system.slice/a.service"));
        assert_eq!(parse("cgroup:4711"), Asked::Id(4711));
        for name in ["web", "shop/web", "047b78268104", "d341e8db-112f-4371-804f-3616d814d3d6", "a.service"] {
            assert_eq!(parse(name), Asked::Name(name));
        }
        assert_eq!(parse("containerd://047b78268104"), Asked::Name("047b78268104"));
        for bad in ["", " ", "cgroup:", "cgroup:x", "99999999999"] {
            assert!(Asked::parse(bad).is_err(), "{bad}");
        }
    }
}
