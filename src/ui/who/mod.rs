//! `kernel-gossip who`: which pod, container or service a process or cgroup belongs to, and which processes are a pod's.
//! What the agent would call it, found out once, and what is not known of it with the reason.

mod find;
mod process;
mod text;
mod whispers;

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::attribution::{HostArgs, watch};
use process::OfProcess;
use whispers::OfPod;

/// Who is asked for, and where to look.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoArgs {
    /// A process id; a cgroup's path (/system.slice/…) or id (cgroup:1234); or the name of a pod (web or shop/web), its
    /// UID, a container's id or a systemd unit
    #[arg(value_name = "PID|CGROUP|POD")]
    pub what: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    #[command(flatten)]
    pub host: HostArgs,
    /// Name of this node in the API server [default: $NODE_NAME, else the host name]
    #[arg(long, value_name = "NAME", value_parser = |name: &str| watch::valid_node_name(name))]
    pub node_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One object: asked, node, process, workloads, whispers, unknown
    Json,
}

/// What was found. Names that others chose are plain text, so that they can be shown.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    asked: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The process that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<OfProcess>,
    /// What it belongs to; of a pod its containers and the pod itself.
    workloads: Vec<Found>,
    /// Of its pods, those that are active.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    whispers: Vec<OfPod>,
    unknown: Vec<Unknown>,
}

/// A workload: what the agent counts as one.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    /// `container`, `sandbox`, `pod`, `unit`, `root`, `cgroup`.
    kind: &'static str,
    /// What whispers and metrics call it.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_request: Option<f64>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_limit: Option<f64>,
    /// The API server has confirmed the names.
    confirmed: bool,
    cgroup: String,
    cgroup_ids: Vec<CgroupId>,
    /// At most [`Found::PROCESSES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    processes: Vec<OfProcess>,
    /// All of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    process_count: Option<usize>,
}

impl Found {
    /// Processes that are listed.
    const PROCESSES: usize = 1000;
}

#[derive(Debug, Serialize)]
struct Owner {
    kind: String,
    name: String,
}

/// The kernel's number for a cgroup, one in each tree.
#[derive(Debug, Serialize)]
struct CgroupId {
    /// `unified`, `cpu`.
    tree: &'static str,
    id: u64,
}

/// What is not known, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unknown {
    what: &'static str,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_to_do: Option<&'static str>,
}

/// Looks, and writes to stdout what it found.
///
/// # Errors
/// Nothing by that name, in one line that says where was looked; stdout cannot be written.
pub async fn run(args: &WhoArgs) -> Result<()> {
    let answer = find::answer(args).await?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Text => text::write(&mut out, &answer).context("stdout")?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &answer).context("stdout")?;
            writeln!(out).context("stdout")?;
        }
    }
    Ok(())
}
