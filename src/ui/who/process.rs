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

/// Bytes of a process's `stat`: some 50 numbers of 20 digits at most, and a name of 15 bytes (a worker's of the kernel: 64).
const STAT_MAX: u64 = 2048;

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
        let mut stat = Vec::new();
        let read = process.open_relative("stat")?.take(STAT_MAX).read_to_end(&mut stat);
        read.map_err(|error| ProcError::Io(error, None))?;
        let (name, state) = name_and_state(&stat).unwrap_or_default();
        let mut of = OfProcess {
            pid,
            name: plain::clipped(&name, 64),
            command: command(&process).unwrap_or_default(),
            zombie: state == 'Z',
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

/// What a process is called and what it does, from its `stat`. The name is whatever it likes, brackets too, and may be cut within
/// a character. (The library's own parser panics where brackets are not as the kernel writes them.)
fn name_and_state(stat: &[u8]) -> Option<(String, char)> {
    let text = String::from_utf8_lossy(stat);
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    Some((name.to_owned(), rest.trim_start().chars().next()?))
}

/// The beginning of the arguments, with spaces between them.
fn command(process: &Process) -> ProcResult<String> {
    let mut bytes = Vec::new();
    let file = process.open_relative("cmdline")?;
    let read = file.take(COMMAND_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| ProcError::Io(error, None))?;
    Ok(shown(&bytes))
}

/// The first [`COMMAND_MAX`] bytes of a command line and one more, if there is one.
fn shown(bytes: &[u8]) -> String {
    let long = bytes.len() > COMMAND_MAX;
    let text = String::from_utf8_lossy(bytes).trim_end_matches('\0').replace('\0', " ");
    match long {
        true => plain::clipped(&text, COMMAND_MAX - '…'.len_utf8()) + "…",
        false => plain::clipped(&text, COMMAND_MAX * 3),
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;
    use procfs::process::Status;

    use super::*;
    use crate::testfuzz::Mutator;

    #[test]
    fn a_name_may_be_anything() {
        for (stat, expected) in [
            (&b"7 (sh) S 1 7"[..], Some(("sh", 'S'))),
            (b"7 (a) Z (b) R 1 7", Some(("a) Z (b", 'R'))),
            (b"7 (() Z 1 7", Some(("(", 'Z'))),
            (b"7 (caf\xc3) S 1 7", Some(("caf\u{fffd}", 'S'))),
            (b")(", None),
            (b"7 (sh)", None),
            (b"", None),
        ] {
            let got = name_and_state(stat);
            assert_eq!(
                got.as_ref().map(|(name, state)| (&**name, *state)),
                expected,
                "{}",
                stat.escape_ascii()
            );
        }
    }

    /// Whoever runs a program says what it is called and what its arguments are.
    #[test]
    fn no_process_panics() {
        let read = |file: &str| std::fs::read(format!("/proc/self/{file}")).expect("this process");
        let [stat, status, command] = ["stat", "status", "cmdline"].map(read);
        Mutator::new(&[&stat, &status, &command]).each(|bytes| {
            let _ = name_and_state(bytes).map(|(name, _)| plain::clipped(&name, 64));
            let _ = Status::from_read(bytes).map(|status| status.tgid);
            let shown = shown(&bytes[..bytes.len().min(COMMAND_MAX + 1)]);
            assert!(shown.len() <= 3 * COMMAND_MAX && !shown.chars().any(plain::is_hidden), "{shown:?}");
        });
    }
}
