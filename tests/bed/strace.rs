//! What strace sees of processes and all that they start: an oracle for counts of system calls.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

/// How often each system call was made, by number.
pub type Calls = BTreeMap<u32, u64>;

/// What strace saw of one run.
#[derive(Default)]
pub struct Strace {
    /// By process, of each program it executed, in their order; before them of what it did until its first exec, or
    /// from when it was traced.
    pub calls: HashMap<u32, Vec<Calls>>,
    /// Processes, and other threads, whose end it saw.
    pub ended: HashSet<u32>,
    /// Writes to files of cgroups, by path.
    pub cgroup_writes: BTreeMap<String, u64>,
}

/// strace with the options that [`Strace::read`] needs, writing to a file; what it is to trace is the caller's.
pub fn to(out: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-n", "-y", "--decode-pids=pidns", "-o"]).arg(out);
    strace
}

enum Step {
    Call(u32),
    Exec,
}

impl Strace {
    /// Reads what [`to`] wrote: a line a call (or two: `<unfinished ...>` and `<... resumed>`).
    pub fn read(text: &str) -> Strace {
        let mut strace = Strace::default();
        let mut steps: Vec<(u32, Step)> = Vec::new();
        let mut group_of: HashMap<u32, u32> = HashMap::new();
        let mut unfinished: HashMap<u32, String> = HashMap::new();
        for line in text.lines() {
            let (thread, rest) = line.split_once(' ').expect("PID first");
            let thread: u32 = thread.parse().expect("a PID");
            if rest.contains("+++ exited with ") || rest.contains("+++ killed by ") {
                strace.ended.insert(thread);
            }
            let Some((number, call)) = rest.trim_start().strip_prefix('[').and_then(|r| r.split_once("] "))
            else {
                continue;
            };
            if call.starts_with("+++") || call.starts_with("---") {
                continue; // the end of a thread, a signal: strace shows the call it was in
            }
            let whole = if let Some(resumed) = call.strip_prefix("<... ") {
                // The exec of a thread other than the first ends in the first, which did not begin it.
                unfinished.remove(&thread).unwrap_or_else(|| resumed.to_owned()) + call
            } else {
                steps.push((thread, Step::Call(number.trim().parse().expect("a number"))));
                call.to_owned()
            };
            if whole.ends_with("<unfinished ...>") {
                unfinished.insert(thread, whole);
                continue;
            }
            if whole.starts_with("clone")
                && let Some(child) = child(&whole)
            {
                let parent = *group_of.get(&thread).unwrap_or(&thread);
                group_of.insert(child, if whole.contains("CLONE_THREAD") { parent } else { child });
            }
            if whole.starts_with("execve") && whole.ends_with(" = 0") {
                steps.push((thread, Step::Exec));
            }
            let name = whole.split('(').next().expect("a name");
            if ["write", "pwrite64", "writev", "pwritev", "pwritev2"].contains(&name)
                && let Some((_, path)) = whole.split_once('<')
                && let Some((path, _)) = path.split_once('>')
                && path.starts_with("/sys/fs/cgroup/")
            {
                *strace.cgroup_writes.entry(path.to_owned()).or_default() += 1;
            }
        }
        for (thread, step) in steps {
            let group = group_of.get(&thread).copied().unwrap_or(thread);
            let programs = strace.calls.entry(group).or_insert_with(|| vec![Calls::new()]);
            match step {
                Step::Exec => programs.push(Calls::new()),
                Step::Call(number) => {
                    *programs.last_mut().expect("one at least").entry(number).or_default() += 1;
                }
            }
        }
        strace
    }

    /// Writes to files of cgroups whose path contains this, by the file's name.
    pub fn written(&self, within: &str) -> BTreeMap<&str, u64> {
        let mut files = BTreeMap::new();
        for (path, count) in self.cgroup_writes.iter().filter(|(path, _)| path.contains(within)) {
            *files.entry(path.rsplit('/').next().expect("a name")).or_default() += count;
        }
        files
    }

    /// Of a process, all its programs together.
    pub fn of(&self, process: u32) -> Calls {
        let mut sum = Calls::new();
        for (number, count) in self.calls.get(&process).into_iter().flatten().flatten() {
            *sum.entry(*number).or_default() += count;
        }
        sum
    }
}

/// All of them.
pub fn sum(calls: &Calls) -> u64 {
    calls.values().sum()
}

/// The child that a call of clone returned, in strace's own namespace: `= 5 /* 1234 in strace's PID NS */`.
fn child(call: &str) -> Option<u32> {
    let (_, result) = call.rsplit_once(" = ")?;
    if let Some((_, translated)) = result.split_once("/* ") {
        return translated.split(' ').next()?.parse().ok();
    }
    result.split(' ').next()?.split('<').next()?.parse().ok()
}
