//! What a cgroup is, from its path alone. Pure; rules of containment, not a list of known paths.
//!
//! A pod is `[-/]pod<uid>` anywhere in the path (the first one counts: what is below a pod is
//! that pod's, whatever it is called), its container the first 64 hex digits after it; whatever lies below a container is the
//! container's. Without a pod the 64 digits name a container of Docker, Podman or another runtime,
//! and the rest are systemd units and plain cgroups. `docs/attribution.md` lists the layouts.

/// A pod as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PodId {
    /// The API's UID, in its usual form with dashes.
    Uid(String),
    /// 32 hex digits: a static pod, named by the hash of its manifest. The API knows it under another
    /// UID and keeps the hash in the annotation `kubernetes.io/config.hash`.
    ConfigHash(String),
}

impl PodId {
    /// A UID as a runtime or the kubelet writes it: a static pod's is its config hash.
    pub fn parse(uid: &str) -> Option<PodId> {
        let hex = |s: &str| s.bytes().all(|b| is_hex(b) || b == b'-');
        match uid.len() {
            36 if hex(uid) => Some(PodId::Uid(uid.into())),
            32 if hex(uid) => Some(PodId::ConfigHash(uid.into())),
            _ => None,
        }
    }

    /// The UID or hash.
    pub fn as_str(&self) -> &str {
        match self {
            PodId::Uid(id) | PodId::ConfigHash(id) => id,
        }
    }
}

/// The quality-of-service class, as the kubelet's directories say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// Who made a container's cgroup, where the path says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Containerd,
    CriO,
    Docker,
    Podman,
    /// One cgroup for the virtual machine that holds all containers of the pod.
    Kata,
    Lxc,
}

/// The pod a path lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPart<'a> {
    pub id: PodId,
    pub qos: Qos,
    /// The pod's own cgroup; `None` where the path names the pod and its container in one segment, as
    /// containerd does when given the wrong cgroup driver.
    pub cgroup: Option<&'a str>,
}

/// What the cgroup that gives the identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Root,
    /// A pod's own cgroup.
    Pod,
    Container {
        /// 64 hex digits; `None` for runtimes that name their containers otherwise (LXC, `ctr`).
        id: Option<&'a str>,
        /// The name, where it is in the path.
        name: Option<&'a str>,
        runtime: Option<Runtime>,
    },
    /// Within a pod, but no container: CRI-O's monitor of a container, or something unknown.
    PodHelper,
    /// A systemd unit: service, scope, slice, …
    Unit(&'a str),
    /// Anything else.
    Plain,
}

/// What a cgroup path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath<'a> {
    pub kind: Kind<'a>,
    /// The cgroup that gives the identity: the path itself or an ancestor whose part it is.
    pub anchor: &'a str,
    pub pod: Option<PodPart<'a>>,
    /// It looks like a pod or a container, but follows no rule.
    pub unknown: bool,
}

/// What the cgroup at `path` (relative to its hierarchy's root, `/…`) is.
pub fn classify(path: &str) -> CgroupPath<'_> {
    if let Some((id, end)) = outermost_pod(path) {
        return in_pod(path, id, end);
    }
    if let Some((kind, anchor)) = container_without_pod(path) {
        // A container may be a whole node (kind), with pods of its own below.
        let unknown = looks_like_a_pod_or_container(&path[anchor.len()..]);
        return CgroupPath { kind, anchor, pod: None, unknown };
    }
    let (kind, anchor) = unit(path);
    CgroupPath { kind, anchor, pod: None, unknown: looks_like_a_pod_or_container(path) }
}

fn in_pod(path: &str, id: PodId, uid_end: usize) -> CgroupPath<'_> {
    let pod_end = segment_end(path, uid_end);
    let container = ids(path, uid_end).find(|&(start, _)| !path[..start].ends_with("conmon-"));
    // `…-pod<uid>.slice:cri-containerd:<id>`: one segment, so the pod has no cgroup of its own.
    let shared_segment = path[uid_end..pod_end].contains(':');
    let pod =
        PodPart { id, qos: qos(&path[..uid_end]), cgroup: (!shared_segment).then_some(&path[..pod_end]) };
    let (kind, anchor, unknown) = match container {
        Some((start, end)) => {
            let runtime = runtime(&path[..start]);
            let kind = Kind::Container { id: Some(&path[start..end]), name: None, runtime };
            (kind, &path[..segment_end(path, end)], false)
        }
        None if pod_end == path.len() && !shared_segment => (Kind::Pod, path, false),
        None => {
            let child = if shared_segment { pod_end } else { segment_end(path, pod_end + 1) };
            let monitor = path[uid_end..child].contains("conmon-");
            (Kind::PodHelper, &path[..child], !monitor)
        }
    };
    CgroupPath { kind, anchor, pod: Some(pod), unknown }
}

/// The first `[-/]pod<uid>`: the pod, and where its UID ends. Not the last: what is below a container of it was named by whoever
/// may write there, and would else be another pod at will.
fn outermost_pod(path: &str) -> Option<(PodId, usize)> {
    path.match_indices("pod").find_map(|(at, _)| {
        if !path[..at].ends_with(['/', '-']) {
            return None;
        }
        let start = at + "pod".len();
        let rest = &path.as_bytes()[start..];
        let (id, len) = uuid(rest).or_else(|| config_hash(rest))?;
        let ends = rest.get(len).is_none_or(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'-' | b'_'));
        ends.then_some((id, start + len))
    })
}

/// What a process in this cgroup cannot leave, other than a pod: a container that may be a node with pods of its own below, or a
/// machine of systemd's. `None`: the node itself. (A user's session is no such thing: who runs a cluster there by sudo is root.)
pub fn realm(path: &str) -> Option<&str> {
    let outside = match outermost_pod(path) {
        Some((_, end)) => &path[..path[..end].rfind('/').unwrap_or(0)],
        None => path,
    };
    let container = container_without_pod(outside).map(|(_, anchor)| anchor);
    container.or_else(|| {
        let mut end = 0;
        loop {
            let name_at = outside.get(end..)?.find('/')? + end + 1;
            end = segment_end(outside, name_at);
            if machine(&outside[name_at..end]).is_some() {
                return Some(&outside[..end]);
            }
        }
    })
}

/// `8-4-4-4-12` hex digits; systemd's driver writes the dashes as underscores.
fn uuid(s: &[u8]) -> Option<(PodId, usize)> {
    const LEN: usize = 36;
    let s = s.get(..LEN)?;
    let separator = s[8];
    if !matches!(separator, b'-' | b'_') {
        return None;
    }
    let mut uid = String::with_capacity(LEN);
    for (i, &b) in s.iter().enumerate() {
        let wants_separator = matches!(i, 8 | 13 | 18 | 23);
        if if wants_separator { b != separator } else { !is_hex(b) } {
            return None;
        }
        uid.push(if wants_separator { '-' } else { char::from(b) });
    }
    Some((PodId::Uid(uid), LEN))
}

fn config_hash(s: &[u8]) -> Option<(PodId, usize)> {
    const LEN: usize = 32;
    let s = s.get(..LEN)?;
    s.iter().all(|&b| is_hex(b)).then(|| (PodId::ConfigHash(s.iter().map(|&b| char::from(b)).collect()), LEN))
}

fn qos(up_to_pod: &str) -> Qos {
    // Only the part from the pod's own kubelet root down: an outer cluster's class is not the pod's.
    let from = up_to_pod.rfind("kubepods").unwrap_or(0);
    if up_to_pod[from..].contains("besteffort") {
        Qos::BestEffort
    } else if up_to_pod[from..].contains("burstable") {
        Qos::Burstable
    } else {
        Qos::Guaranteed
    }
}

/// A container outside Kubernetes, and its anchor.
fn container_without_pod(path: &str) -> Option<(Kind<'_>, &str)> {
    let candidates = || ids(path, 0).filter(|&(start, _)| !no_container(&path[..start]));
    // A Podman pod is 64 digits too, so an id that the runtime has marked as its container's goes first.
    let marked = candidates().find(|&(start, _)| runtime(&path[..start]).is_some());
    if let Some((start, end)) = marked.or_else(|| candidates().next()) {
        let kind =
            Kind::Container { id: Some(&path[start..end]), name: None, runtime: runtime(&path[..start]) };
        return Some((kind, &path[..segment_end(path, end)]));
    }
    let lxc = ["/lxc.payload.", "/lxc.payload/"].iter().find_map(|p| path.find(p).map(|at| at + p.len()));
    let (name_at, runtime) = match lxc {
        Some(at) => (at, Runtime::Lxc),
        None if path.starts_with("/lxc/") => ("/lxc/".len(), Runtime::Lxc),
        // `/<namespace>/<name>`: containerd's clients, in containerd's default namespace.
        None if path.starts_with("/default/") => ("/default/".len(), Runtime::Containerd),
        None => return in_garden(path),
    };
    let end = segment_end(path, name_at);
    let kind = Kind::Container { id: None, name: Some(&path[name_at..end]), runtime: Some(runtime) };
    (end > name_at).then_some((kind, &path[..end]))
}

/// Cloud Foundry's: `/garden/<handle>`, where the handle is `8-4-4-4-4` hex digits (or a UUID), below `good` or `bad`
/// where they are distinguished by what they use.
fn in_garden(path: &str) -> Option<(Kind<'_>, &str)> {
    let mut at = path.find("/garden/")? + "/garden/".len();
    let mut end = segment_end(path, at);
    if matches!(&path[at..end], "good" | "bad") && end < path.len() {
        at = end + 1;
        end = segment_end(path, at);
    }
    let handle = &path[at..end];
    let groups: Vec<usize> = handle.split('-').map(str::len).collect();
    let fits = matches!(groups[..], [8, 4, 4, 4, 4 | 12]) && handle.bytes().all(|b| is_hex(b) || b == b'-');
    fits.then(|| (Kind::Container { id: None, name: Some(handle), runtime: None }, &path[..end]))
}

/// The 64 digits after `before` are no container's: its monitor's, or a Podman pod's.
fn no_container(before: &str) -> bool {
    ["conmon-", "_pod_", "/libpod_parent/"].iter().any(|p| before.ends_with(p))
}

/// Who writes ids with this before them.
fn runtime(before: &str) -> Option<Runtime> {
    const MARKS: [(&str, Runtime); 8] = [
        ("cri-containerd-", Runtime::Containerd),
        ("cri-containerd:", Runtime::Containerd),
        ("nerdctl-", Runtime::Containerd),
        ("crio-", Runtime::CriO),
        ("docker-", Runtime::Docker),
        ("/docker/", Runtime::Docker),
        ("libpod-", Runtime::Podman),
        ("kata_", Runtime::Kata),
    ];
    MARKS.iter().find(|(mark, _)| before.ends_with(mark)).map(|&(_, runtime)| runtime)
}

/// The systemd unit a path is part of: its deepest unit, unless that is only a slice above it (a slice
/// groups, it does not own what others put below it).
fn unit(path: &str) -> (Kind<'_>, &str) {
    const OWNERS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
    if path == "/" || path.is_empty() {
        return (Kind::Root, path);
    }
    let mut end = path.len();
    while let Some(slash) = path[..end].rfind('/') {
        let name = &path[slash + 1..end];
        if OWNERS.iter().any(|suffix| name.ends_with(suffix)) {
            return (Kind::Unit(name), &path[..end]);
        }
        if name.ends_with(".slice") {
            return if end == path.len() { (Kind::Unit(name), path) } else { (Kind::Plain, path) };
        }
        end = slash;
    }
    (Kind::Plain, path)
}

/// The name of the machine (a virtual machine of libvirt, a container of systemd-nspawn) whose scope the unit is, as
/// `machinectl` shows it: `machine-qemu\x2d1\x2dvm1.scope` is `qemu-1-vm1`.
pub fn machine(unit: &str) -> Option<String> {
    let mut rest = unit.strip_prefix("machine-")?.strip_suffix(".scope")?;
    let mut name = String::with_capacity(rest.len());
    // systemd.unit(5): `-` stands for `/`, and what would be taken for something else is escaped.
    while let Some(c) = rest.chars().next() {
        let code = rest.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
        match code.filter(u8::is_ascii_graphic) {
            Some(byte) => {
                name.push(char::from(byte));
                rest = &rest[4..];
            }
            None => {
                name.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    (!name.is_empty()).then_some(name)
}

fn looks_like_a_pod_or_container(path: &str) -> bool {
    let segments = || path.split('/').filter(|s| !s.is_empty());
    let last = segments().next_back().unwrap_or_default();
    // Below the kubelet's root there are its QoS classes, then pods.
    let kubelet = segments().any(|s| s.contains("kubepods"));
    let grouping =
        matches!(last, "besteffort" | "burstable") || last.contains("kubepods") && !last.contains("-pod");
    let scope_of_a_runtime = segments().any(|s| {
        s.ends_with(".scope")
            && !s.contains("conmon-")
            && ["cri-containerd-", "crio-", "docker-", "libpod-", "nerdctl-"].iter().any(|p| s.starts_with(p))
    });
    kubelet && !grouping || scope_of_a_runtime
}

/// The 64-hex-digit words of `path` from byte `from` on: where each starts and ends.
fn ids(path: &str, from: usize) -> impl Iterator<Item = (usize, usize)> {
    const LEN: usize = 64;
    let bytes = path.as_bytes();
    let mut at = from;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            while at < bytes.len() && bytes[at].is_ascii_alphanumeric() {
                at += 1;
            }
            let word = start..at;
            at += 1;
            if word.len() == LEN && bytes[word.clone()].iter().all(|&b| is_hex(b)) {
                return Some((word.start, word.end));
            }
        }
        None
    })
}

/// The end of the path segment that byte `from` lies in.
fn segment_end(path: &str, from: usize) -> usize {
    path[from..].find('/').map_or(path.len(), |at| from + at)
}

fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// Cgroups that look like a pod or a container but follow no rule: how many, and the first few.
#[derive(Clone, Debug, Default)]
pub struct UnknownShapes {
    pub count: u64,
    /// At most [`UnknownShapes::EXAMPLES`] paths.
    pub examples: Vec<String>,
}

impl UnknownShapes {
    /// How many paths are kept to be shown.
    pub const EXAMPLES: usize = 8;

    /// Counts `path`, which [`classify`] called unknown; true if it was kept as an example.
    pub fn note(&mut self, path: &str) -> bool {
        self.count += 1;
        let keep = self.examples.len() < Self::EXAMPLES && !self.examples.iter().any(|e| e == path);
        if keep {
            self.examples.push(path.to_string());
        }
        keep
    }
}

#[cfg(test)]
mod tests;
