//! Names from the runtime's own files, there before the container's first instruction: no API needed.
//!
//! | runtime | file | what names it |
//! |---|---|---|
//! | containerd | `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/config.json` | annotations `io.kubernetes.cri.*` |
//! | CRI-O | `<storage>/overlay-containers/<id>/userdata/config.json` | annotations `io.kubernetes.*` |
//! | Podman | the same, and `<storage>/overlay-containers/containers.json` | `names` of the list |
//! | Docker | `<data root>/containers/<id>/config.v2.json` | `Name`, and the labels cri-dockerd sets |

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tracing::{debug, info};

/// What a runtime says of a container. Everything may be missing: then the container exists, unnamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleNames {
    pub namespace: Option<String>,
    pub pod: Option<String>,
    /// The pod's UID; for a static pod its config hash.
    pub pod_uid: Option<String>,
    pub container: Option<String>,
    /// The pod's sandbox, not one of its containers.
    pub sandbox: bool,
    /// The name of a container without Kubernetes.
    pub name: Option<String>,
}

impl BundleNames {
    fn is_named(&self) -> bool {
        self.pod.is_some() || self.name.is_some()
    }
}

/// Why a container's bundle says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No root has it (yet).
    Absent,
    /// It is there but cannot be understood (perhaps it is being written): one line that says why.
    Unreadable(String),
}

/// A directory in which a runtime keeps its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    /// containerd: `<namespace>/<id>/config.json`.
    Tasks(PathBuf),
    /// containers/storage (CRI-O, Podman): `<id>/userdata/config.json`.
    Storage(PathBuf),
    /// Docker: `<id>/config.v2.json`.
    Docker(PathBuf),
}

const TASKS: &str = "io.containerd.runtime.v2.task";

/// The runtimes' directories on this machine: the usual ones, those given, and those that the mount
/// table shows (a container's root file system or shm is mounted below them).
#[derive(Debug)]
pub struct Bundles {
    roots: Vec<Root>,
    discovered: Option<Instant>,
    buffer: Vec<u8>,
}

impl Bundles {
    /// The state or data directories of containerd (also of k3s, k0s, MicroK8s and Docker).
    const CONTAINERD: [&str; 5] = [
        "/run/containerd",
        "/run/k3s/containerd",
        "/run/k0s/containerd",
        "/var/snap/microk8s/common/run/containerd",
        "/run/docker/containerd/daemon",
    ];
    /// The run and graph roots of containers/storage.
    const STORAGE: [&str; 2] = ["/run/containers/storage", "/var/lib/containers/storage"];
    const DOCKER: [&str; 1] = ["/var/lib/docker"];

    /// A bundle is some kilobytes; what is larger is none.
    const MAX_FILE: u64 = 1 << 20;
    const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);

    /// The usual directories, after those given: a state directory of containerd (`/run/containerd`), a
    /// run or graph root of containers/storage (`/run/containers/storage`), a data root of Docker
    /// (`/var/lib/docker`), or the directory in it that holds the containers. They need not exist yet.
    pub fn new(given: &[PathBuf]) -> Self {
        let mut bundles = Bundles { roots: Vec::new(), discovered: None, buffer: Vec::new() };
        for dir in given {
            let named = |wanted: &str| dir.file_name().is_some_and(|n| n == wanted);
            let within = |name: &str| if named(name) { dir.clone() } else { dir.join(name) };
            bundles.add(Root::Tasks(within(TASKS)));
            bundles.add(Root::Storage(within("overlay-containers")));
            bundles.add(Root::Docker(within("containers")));
        }
        Self::CONTAINERD.iter().for_each(|dir| bundles.add(Root::Tasks(Path::new(dir).join(TASKS))));
        Self::STORAGE
            .iter()
            .for_each(|dir| bundles.add(Root::Storage(Path::new(dir).join("overlay-containers"))));
        Self::DOCKER.iter().for_each(|dir| bundles.add(Root::Docker(Path::new(dir).join("containers"))));
        bundles
    }

    /// No directory at all, and none looked for.
    pub fn none() -> Self {
        Bundles { roots: Vec::new(), discovered: Some(Instant::now()), buffer: Vec::new() }
    }

    /// What the runtime says of the container `id`. Reads one small file, or tries one per root and
    /// namespace of containerd where it is in none.
    ///
    /// # Errors
    /// [`Miss`]: worth asking again a little later.
    pub fn look_up(&mut self, id: &str) -> Result<BundleNames, Miss> {
        let found = self.search(id);
        if found != Err(Miss::Absent) || !self.discover() {
            return found;
        }
        self.search(id)
    }

    fn search(&mut self, id: &str) -> Result<BundleNames, Miss> {
        // An id becomes part of a path.
        if id.is_empty() || id == "." || id == ".." || id.contains('/') {
            return Err(Miss::Absent);
        }
        let mut result = Err(Miss::Absent);
        for root in &self.roots {
            let found = match root {
                Root::Tasks(dir) => in_tasks(dir, id, &mut self.buffer),
                Root::Storage(dir) => in_storage(dir, id, &mut self.buffer),
                Root::Docker(dir) => {
                    read(&dir.join(id).join("config.v2.json"), &mut self.buffer, parse_docker)
                }
            };
            match found {
                Ok(names) if names.is_named() => return Ok(names),
                // Docker's containers are in containerd too, where they have no name: look on.
                Ok(names) => result = Ok(names),
                Err(miss) if result.is_err() && miss != Miss::Absent => result = Err(miss),
                Err(_) => {}
            }
        }
        result
    }

    /// Looks for more roots in the mount table; true if there are. At most twice a minute.
    fn discover(&mut self) -> bool {
        let now = Instant::now();
        if self.discovered.is_some_and(|at| now.duration_since(at) < Self::DISCOVERY_INTERVAL) {
            return false;
        }
        self.discovered = Some(now);
        let table = match File::open("/proc/self/mountinfo") {
            Ok(file) => BufReader::new(file),
            Err(error) => {
                debug!(%error, "/proc/self/mountinfo");
                return false;
            }
        };
        let before = self.roots.len();
        for root in roots_in(table) {
            if !self.roots.contains(&root) {
                info!(?root, "found a container runtime's directory in the mount table");
                self.roots.push(root);
            }
        }
        self.roots.len() > before
    }

    fn add(&mut self, root: Root) {
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
    }
}

fn in_tasks(dir: &Path, id: &str, buffer: &mut Vec<u8>) -> Result<BundleNames, Miss> {
    let namespaces = std::fs::read_dir(dir).map_err(|_| Miss::Absent)?;
    // A handful: k8s.io, moby, default.
    namespaces
        .filter_map(Result::ok)
        .map(|namespace| read(&namespace.path().join(id).join("config.json"), buffer, parse_oci))
        .find(|found| *found != Err(Miss::Absent))
        .unwrap_or(Err(Miss::Absent))
}

fn in_storage(dir: &Path, id: &str, buffer: &mut Vec<u8>) -> Result<BundleNames, Miss> {
    let names = read(&dir.join(id).join("userdata/config.json"), buffer, parse_oci)?;
    if names.is_named() {
        return Ok(names);
    }
    // Podman writes the name only into the list of all containers.
    let name = read(&dir.join("containers.json"), buffer, |text| storage_name(text, id)).ok().flatten();
    Ok(BundleNames { name, ..names })
}

/// Reads a small file and parses it.
fn read<T>(
    path: &Path,
    buffer: &mut Vec<u8>,
    parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> Result<T, Miss> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Miss::Absent,
        _ => Miss::Unreadable(format!("{}: {error}", path.display())),
    })?;
    buffer.clear();
    file.take(Bundles::MAX_FILE)
        .read_to_end(buffer)
        .map_err(|error| Miss::Unreadable(format!("{}: {error}", path.display())))?;
    parse(buffer).map_err(|error| Miss::Unreadable(format!("{}: {error}", path.display())))
}

/// The runtimes' directories that a mount table (`/proc/<pid>/mountinfo`) shows.
fn roots_in(table: impl BufRead) -> Vec<Root> {
    let mut roots = Vec::new();
    for line in table.lines().map_while(Result::ok) {
        // proc(5): the fifth field is the mount point.
        let Some(root) = line.split(' ').nth(4).and_then(root_above) else { continue };
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}

/// The runtime's directory above a mount point that belongs to one of its containers.
fn root_above(mount_point: &str) -> Option<Root> {
    if let Some(at) = mount_point.find(TASKS) {
        return Some(Root::Tasks(mount_point[..at + TASKS.len()].into()));
    }
    let id = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let mut end = 0;
    let mut segments = mount_point.split('/').peekable();
    while let Some(segment) = segments.next() {
        end += segment.len();
        if segments.peek().is_some_and(|next| id(next)) {
            let dir = PathBuf::from(&mount_point[..end]);
            match segment {
                "containers" => return Some(Root::Docker(dir)),
                _ if segment.ends_with("-containers") => return Some(Root::Storage(dir)),
                _ => {}
            }
        }
        end += 1;
    }
    None
}

#[derive(Deserialize)]
struct OciConfig {
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
    cri_namespace: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-name")]
    cri_pod: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-uid")]
    cri_uid: Option<String>,
    #[serde(rename = "io.kubernetes.cri.container-name")]
    cri_container: Option<String>,
    #[serde(rename = "io.kubernetes.cri.container-type")]
    cri_type: Option<String>,
    #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
    crio_type: Option<String>,
    #[serde(rename = "nerdctl/name")]
    nerdctl_name: Option<String>,
    #[serde(flatten)]
    kubelet: KubeletLabels,
}

/// The labels the kubelet gives each container (`pkg/kubelet/types/labels.go`): CRI-O makes them
/// annotations of the bundle, cri-dockerd labels of Docker's container.
#[derive(Default, Deserialize)]
#[serde(default)]
struct KubeletLabels {
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.pod.uid")]
    uid: Option<String>,
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.docker.type")]
    docker_type: Option<String>,
}

fn parse_oci(text: &[u8]) -> serde_json::Result<BundleNames> {
    let a = serde_json::from_slice::<OciConfig>(text)?.annotations;
    let sandbox = [&a.cri_type, &a.crio_type].into_iter().flatten().any(|t| t == "sandbox");
    Ok(BundleNames {
        namespace: checked(a.cri_namespace.or(a.kubelet.namespace)),
        pod: checked(a.cri_pod.or(a.kubelet.pod)),
        pod_uid: checked(a.cri_uid.or(a.kubelet.uid)),
        container: checked(a.cri_container.or(a.kubelet.container)).filter(|_| !sandbox),
        sandbox,
        name: checked(a.nerdctl_name),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    name: Option<String>,
    #[serde(default)]
    config: DockerContainer,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerContainer {
    labels: Option<KubeletLabels>,
}

fn parse_docker(text: &[u8]) -> serde_json::Result<BundleNames> {
    let DockerConfig { name, config } = serde_json::from_slice(text)?;
    let labels = config.labels.unwrap_or_default();
    let sandbox = labels.docker_type.as_deref() == Some("podsandbox");
    Ok(BundleNames {
        namespace: checked(labels.namespace),
        pod: checked(labels.pod),
        pod_uid: checked(labels.uid),
        container: checked(labels.container).filter(|_| !sandbox),
        sandbox,
        name: checked(name.map(|n| n.trim_start_matches('/').to_string())),
    })
}

#[derive(Deserialize)]
struct StorageContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

fn storage_name(text: &[u8], id: &str) -> serde_json::Result<Option<String>> {
    let list: Vec<StorageContainer> = serde_json::from_slice(text)?;
    Ok(list.into_iter().find(|c| c.id == id).and_then(|c| checked(c.names.into_iter().next())))
}

/// A name that can be one: not empty, no longer than Kubernetes allows, printable. Container engines
/// allow users no more than that either.
fn checked(name: Option<String>) -> Option<String> {
    name.filter(|n| {
        !n.is_empty() && n.len() <= 253 && !n.chars().any(|c| c.is_control() || c.is_whitespace())
    })
}

#[cfg(test)]
mod tests;
