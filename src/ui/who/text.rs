//! The answer for people.

use std::io::{self, Write};

use super::process::OfProcess;
use super::{Answer, Found, Owner};

/// Processes of a workload that are shown; all of them are in the JSON.
const SHOWN: usize = 20;

/// Writes it.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    if let Some(process) = &answer.process {
        line(out, "process", &describe(process))?;
        for (hierarchy, path) in &process.cgroups {
            let elsewhere = answer.workloads.first().is_none_or(|found| found.cgroup != *path);
            if elsewhere {
                line(out, "in", &format!("{path} ({hierarchy})"))?;
            }
        }
        let namespaces: Vec<_> = process.namespaces.iter().map(|(kind, id)| format!("{kind} {id}")).collect();
        if !namespaces.is_empty() {
            line(out, "namespaces", &namespaces.join(", "))?;
        }
    }
    for (n, found) in answer.workloads.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        workload(out, found)?;
    }
    for whisper in &answer.whispers {
        line(out, "whisper", &format!("{}: {}", whisper.severity, whisper.insight))?;
    }
    if let Some(node) = &answer.node {
        line(out, "node", node)?;
    }
    for unknown in &answer.unknown {
        line(out, "not known", &format!("{}: {}", unknown.what, unknown.why))?;
        if let Some(what_to_do) = unknown.what_to_do {
            writeln!(out, "               -> {what_to_do}")?;
        }
    }
    Ok(())
}

fn workload(out: &mut impl Write, found: &Found) -> io::Result<()> {
    line(out, found.kind, &found.name)?;
    if let Some(id) = &found.container_id {
        line(out, "id", id)?;
    }
    if let Some(uid) = &found.pod_uid {
        line(out, "pod UID", uid)?;
    }
    if let Some(Owner { kind, name }) = &found.owner {
        line(out, "owner", &format!("{kind} {name}"))?;
    }
    if found.cpu_request.is_some() || found.cpu_limit.is_some() {
        let cores = |n: Option<f64>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let (request, limit) = (cores(found.cpu_request), cores(found.cpu_limit));
        line(out, "CPU", &format!("request {request}, limit {limit} cores"))?;
    }
    if found.pod.is_some() {
        let source = if found.confirmed { "the API server" } else { "the container runtime's files" };
        line(out, "named by", source)?;
    }
    line(out, "cgroup", &found.cgroup)?;
    let ids: Vec<_> = found.cgroup_ids.iter().map(|c| format!("{} {}", c.tree, c.id)).collect();
    if !ids.is_empty() {
        line(out, "cgroup ids", &ids.join(", "))?;
    }
    if let Some(count) = found.process_count {
        line(out, "processes", &count.to_string())?;
        for process in found.processes.iter().take(SHOWN) {
            writeln!(out, "               {}", describe(process))?;
        }
        if let Some(more @ 1..) = count.checked_sub(SHOWN) {
            writeln!(out, "               … and {more} more: --output json lists them")?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<13}{value}")
}

fn describe(process: &OfProcess) -> String {
    let OfProcess { pid, name, command, thread_of, zombie, .. } = process;
    let thread = thread_of.map(|of| format!(", a thread of {of}")).unwrap_or_default();
    let ended = if *zombie { ", ended: its parent has not taken note" } else { "" };
    let command = if command.is_empty() { String::new() } else { format!(": {command}") };
    format!("{pid} {name}{thread}{ended}{command}")
}
