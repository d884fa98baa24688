//! Loads and attaches the very programs that will run, and lets go of them: that small ones of their kind load says
//! what a host allows, not that the verifier takes these, or that their maps fit.

use serde::{Deserialize, Serialize};

use super::probe::{Kind, LoadError};
use crate::causes::chain;

/// What became of the programs of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// `cpu`, `cgroup iterator`, `cgroup tracepoints`, `births`.
    pub probe: String,
    /// Why it does not load or attach, with its errno; `None`: it does.
    pub error: Option<String>,
    /// What the owner of the host can do about it.
    pub what_to_do: Option<String>,
}

impl Rehearsal {
    /// What becomes of all of a probe at once: it is loaded and attached, and let go of.
    pub(super) fn of_all<K: Kind>(probe: &str, options: K::Options) -> Vec<Rehearsal> {
        let mut storage = K::Storage::default();
        vec![Rehearsal::of(probe, K::load(&mut storage, options).map(drop))]
    }

    /// What became of the programs of this name.
    pub fn of(probe: &str, outcome: Result<(), impl Into<LoadError>>) -> Rehearsal {
        let error = outcome.err().map(|error| chain(&*error.into()));
        let what_to_do = error.as_deref().map(|error| what_to_do(error).to_owned());
        Rehearsal { probe: probe.to_owned(), error, what_to_do }
    }
}

/// What may help, by errno.
const ADVICE: [(i32, &str); 5] = [
    (
        libc::E2BIG,
        "the kernel's verifier gave up on its length, which this agent should not let happen: report it with the output of \
         `kernel-gossip check --output json`",
    ),
    (libc::EMFILE, "let it open more files (systemd: LimitNOFILE=, container runtime: nofile)"),
    (libc::ENOMEM, "give it more memory (in a pod: resources.limits.memory), or lower `agent.max_cgroups`"),
    (libc::EPERM, FORBIDDEN),
    (libc::EACCES, FORBIDDEN),
];
const FORBIDDEN: &str = "see whether a security module forbids it, and the kernel's log; before 5.11 maps are locked memory: \
                         raise the limit (systemd: LimitMEMLOCK=infinity)";
const ELSE: &str = "see the kernel's log; if it says nothing, report it with the output of `kernel-gossip check --output json`";

/// By the errno in the text: libbpf gives it no other way.
fn what_to_do(error: &str) -> &'static str {
    let known = ADVICE.iter().find(|(errno, _)| error.contains(&format!("(os error {errno})")));
    known.map_or(ELSE, |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cpu probe: cannot load the programs")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_said_with_its_errno_and_what_to_do() {
        for (errno, advice) in [
            (libc::E2BIG, "report it"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::ENOMEM, "max_cgroups"),
            (libc::EPERM, "security module"),
            (libc::EINVAL, "kernel's log"),
        ] {
            let failed = Rehearsal::of("cpu", Err(Outer(io::Error::from_raw_os_error(errno))));
            let error = failed.error.expect("an error");
            assert!(error.starts_with("cpu probe: cannot load the programs: "), "{error}");
            assert!(error.ends_with(&format!("(os error {errno})")), "{error}");
            assert!(failed.what_to_do.is_some_and(|what| what.contains(advice)), "{error}");
        }
        let fine = Rehearsal::of("cpu", Ok::<(), Outer>(()));
        assert_eq!((fine.error, fine.what_to_do), (None, None));
    }
}
