//! Names from the runtime's own files, there before the container's first instruction: no API needed.
//!
//! | runtime | file | what names it |
//! |---|---|---|
//! | containerd | `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/config.json` | annotations `io.kubernetes.cri.*` |
//! | CRI-O | `<storage>/overlay-containers/<id>/userdata/config.json` | annotations `io.kubernetes.*` |
//! | Podman | the same, and `<storage>/overlay-containers/{,volatile-}containers.json` | `names` of the list |
//! | Docker | `<data root>/containers/<id>/config.v2.json` | `Name`, and the labels cri-dockerd sets |

mod directories;
mod podman;

pub use directories::Directory;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::{debug, info};

use crate::bounds::DNS_NAME;
use crate::plain::is_hidden;

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
    /// It says who the container is, not only that it exists.
    pub fn is_named(&self) -> bool {
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
    /// Those given: what is not there is missed.
    given: Vec<PathBuf>,
    discovered: Option<Instant>,
    lists: podman::Lists,
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

    /// A bundle is some kilobytes; but in a namespace with 2,000 Services each container has 14,000 variables of
    /// theirs, and a host has a list of thousands of containers. What is larger is neither.
    const MAX_FILE: u64 = 16 << 20;
    /// What is longer is not taken into memory as a whole.
    const MAX_WHOLE: u64 = 1 << 20;
    const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);

    /// The usual directories, after those given: a state directory of containerd (`/run/containerd`), a
    /// run or graph root of containers/storage (`/run/containers/storage`), a data root of Docker
    /// (`/var/lib/docker`), or the directory in it that holds the containers. They need not exist yet.
    pub fn new(given: &[PathBuf]) -> Self {
        let mut bundles = Bundles { given: given.to_vec(), discovered: None, ..Bundles::none() };
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
        Bundles {
            roots: Vec::new(),
            given: Vec::new(),
            discovered: Some(Instant::now()),
            lists: podman::Lists::default(),
            buffer: Vec::new(),
        }
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
        let mut in_storage = false;
        for root in &self.roots {
            let found = match root {
                Root::Tasks(dir) => in_tasks(dir, id, &mut self.buffer),
                Root::Storage(dir) => {
                    let found =
                        read::<OciConfig>(&dir.join(id).join("userdata/config.json"), &mut self.buffer);
                    in_storage |= found.is_ok();
                    found.map(BundleNames::from)
                }
                Root::Docker(dir) => {
                    read::<DockerConfig>(&dir.join(id).join("config.v2.json"), &mut self.buffer)
                        .map(BundleNames::from)
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
        if let (true, Ok(names)) = (in_storage, &mut result) {
            // Podman writes the name only into the lists of all containers, which may be in another of its roots.
            let dirs = self.roots.iter().filter_map(|root| match root {
                Root::Storage(dir) => Some(dir.as_path()),
                _ => None,
            });
            names.name = self.lists.name(dirs, id, &mut self.buffer)?;
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
        for root in roots_in(table).into_iter().chain(roots_of_users()) {
            if !self.roots.contains(&root) {
                info!(?root, "found a container runtime's directory");
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
        .map(|namespace| read::<OciConfig>(&namespace.path().join(id).join("config.json"), buffer))
        .map(|found| found.map(BundleNames::from))
        .find(|found| *found != Err(Miss::Absent))
        .unwrap_or(Err(Miss::Absent))
}

/// Reads a JSON file.
fn read<T: DeserializeOwned>(path: &Path, buffer: &mut Vec<u8>) -> Result<T, Miss> {
    let unreadable = |why: &dyn Display| Miss::Unreadable(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Miss::Absent,
        _ => unreadable(&error),
    })?;
    buffer.clear();
    let mut rest = file.take(Bundles::MAX_FILE);
    (&mut rest).take(Bundles::MAX_WHOLE).read_to_end(buffer).map_err(|error| unreadable(&error))?;
    if (buffer.len() as u64) < Bundles::MAX_WHOLE {
        return serde_json::from_slice(buffer).map_err(|error| unreadable(&error));
    }
    let text = BufReader::new(Cursor::new(&buffer[..]).chain(&mut rest));
    serde_json::from_reader(text).map_err(|error| match rest.limit() == 0 && error.is_eof() {
        true => unreadable(&format_args!("longer than {} MiB, and read no further", Bundles::MAX_FILE >> 20)),
        false => unreadable(&error),
    })
}

/// The runtimes' directories that a mount table (`/proc/<pid>/mountinfo`) shows.
fn roots_in(table: impl BufRead) -> Vec<Root> {
    let mut roots = Vec::new();
    for line in table.split(b'\n').map_while(Result::ok) {
        // What is no text is none of a runtime's, and hides none that are.
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        // proc(5): the fifth field is the mount point.
        let Some(root) = line.split(' ').nth(4).and_then(root_above) else { continue };
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}

/// Where Podman keeps the containers of those who run it without being root: below the homes of all who have a session,
/// or let their containers go on without one (`loginctl enable-linger`).
fn roots_of_users() -> Vec<Root> {
    const USERS_MAX: usize = 256;
    let Ok(users) = std::fs::read("/etc/passwd") else { return Vec::new() };
    homes(&String::from_utf8_lossy(&users))
        .filter(|(user, _)| Path::new("/run/user").join(user).is_dir())
        .take(USERS_MAX)
        .map(|(_, home)| Root::Storage(home.join(".local/share/containers/storage/overlay-containers")))
        .filter(|root| matches!(root, Root::Storage(dir) if dir.is_dir()))
        .collect()
}

/// User ids and homes of a passwd(5) file.
fn homes(passwd: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (user, home) = (fields.next()?, fields.nth(2)?);
        (user.parse::<u32>().is_ok() && home.starts_with('/')).then(|| (user, PathBuf::from(home)))
    })
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
    annotations: Option<Annotations>,
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

impl From<OciConfig> for BundleNames {
    fn from(config: OciConfig) -> Self {
        let a = config.annotations.unwrap_or_default();
        let sandbox = [&a.cri_type, &a.crio_type].into_iter().flatten().any(|t| t == "sandbox");
        BundleNames {
            namespace: checked(a.cri_namespace.or(a.kubelet.namespace)),
            pod: checked(a.cri_pod.or(a.kubelet.pod)),
            pod_uid: checked(a.cri_uid.or(a.kubelet.uid)),
            container: checked(a.cri_container.or(a.kubelet.container)).filter(|_| !sandbox),
            sandbox,
            name: checked(a.nerdctl_name),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    name: Option<String>,
    config: Option<DockerContainer>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerContainer {
    labels: Option<KubeletLabels>,
}

impl From<DockerConfig> for BundleNames {
    fn from(DockerConfig { name, config }: DockerConfig) -> Self {
        let labels = config.and_then(|c| c.labels).unwrap_or_default();
        let sandbox = labels.docker_type.as_deref() == Some("podsandbox");
        BundleNames {
            namespace: checked(labels.namespace),
            pod: checked(labels.pod),
            pod_uid: checked(labels.uid),
            container: checked(labels.container).filter(|_| !sandbox),
            sandbox,
            name: checked(name.map(|n| n.trim_start_matches('/').to_string())),
        }
    }
}

/// A name that can be one: not empty, no longer than Kubernetes allows, printable. Container engines
/// allow users no more than that either.
fn checked(name: Option<String>) -> Option<String> {
    name.filter(|n| {
        !n.is_empty() && n.len() <= DNS_NAME && !n.chars().any(|c| is_hidden(c) || c.is_whitespace())
    })
}

#[cfg(test)]
mod tests;
