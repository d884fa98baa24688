//! A process, as /proc shows it.

use std::collections::BTreeMap;
use std::io::Read;

use procfs::process::Process;
use procfs::{ProcError, ProcResult};
use serde::Serialize;

use crate::attribution::processes::{self, Membership};
use crate::plain;

/// Of a command line, which may be megabytes, as many bytes are shown.
const COMMAND_MAX: usize = 200;

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfProcess {
    pub pid: i32,
    /// What the kernel calls it: 15 bytes.
    pub name: String,
    /// Its arguments, cut; empty for a kernel thread and for a process that has ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// The process that it is a thread of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_of: Option<i32>,
    /// It has ended, and its parent has not taken note.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub zombie: bool,
    /// Inode numbers of its namespaces, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, u64>,
    /// Its cgroup in each hierarchy that has processes sorted into cgroups.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroups: BTreeMap<String, String>,
}

impl OfProcess {
    /// The process, and where it is. Everything is read by one descriptor, so that a process that gets the number
    /// meanwhile is not taken for it.
    ///
    /// # Errors
    /// It has ended, or /proc does not show it.
    pub fn read(pid: i32) -> ProcResult<(OfProcess, Vec<Membership>, Process)> {
        let process = Process::new(pid)?;
        let memberships = processes::memberships(&process)?;
        let stat = process.stat()?;
        let mut of = OfProcess {
            pid,
            name: plain::clipped(&stat.comm, 64),
            command: command(&process).unwrap_or_default(),
            zombie: stat.state == 'Z',
            ..OfProcess::default()
        };
        let own = process.status().map_or(pid, |status| status.tgid);
        of.thread_of = (own != pid).then_some(own);
        Ok((of, memberships, process))
    }

    /// Adds what only the one that was asked for is shown with.
    ///
    /// # Errors
    /// Its namespaces may not be read.
    pub fn look_closer(&mut self, process: &Process, memberships: &[Membership]) -> ProcResult<()> {
        for m in memberships.iter().filter(|m| m.path != "/") {
            let hierarchy = match m.controllers.is_empty() {
                true => "unified".to_owned(),
                false => plain::clipped(&m.controllers.join(","), 64),
            };
            self.cgroups.insert(hierarchy, m.path.clone());
        }
        let all = process.namespaces()?.0;
        let own = all.into_values().filter_map(|n| Some((n.ns_type.into_string().ok()?, n.identifier)));
        self.namespaces = own.filter(|(kind, _)| !kind.ends_with("_for_children")).collect();
        Ok(())
    }
}

/// The beginning of the arguments, with spaces between them.
fn command(process: &Process) -> ProcResult<String> {
    let mut bytes = Vec::new();
    let file = process.open_relative("cmdline")?;
    let read = file.take(COMMAND_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| ProcError::Io(error, None))?;
    let long = bytes.len() > COMMAND_MAX;
    let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    Ok(match long {
        true => plain::clipped(&text, COMMAND_MAX - '…'.len_utf8()) + "…",
        false => plain::clipped(&text, COMMAND_MAX * 3),
    })
}
