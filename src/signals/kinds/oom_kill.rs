//! `oom_kill`: the kernel killed a process of it, because a memory limit was reached or the node had no more.

use std::fmt::Write;
use std::sync::Arc;

use super::Kind;
use crate::advice::{self, Evidence, NodeFacts, Recommendation};
use crate::attribution::{Workload, WorkloadKind};
use crate::bounds;
use crate::evidence::{MemoryNumbers, Severity, SignalEvidence};
use crate::kernel::oom::{Asker, Kill, Limit, Victim};
use crate::plain::{bytes, made_plain};
use crate::signals::rules::{ENABLED, HOLD, Key, REPEAT, Section};
use crate::signals::whisper::Whisper;

#[derive(Debug)]
pub struct OomKill;

const COMMON: [Key; 3] =
    [ENABLED, Key::duration(HOLD.name, 180.0, "How long after the last kill it is said. 0s to 1h."), REPEAT];

static SECTION: Section = Section {
    help: "The kernel killed a process of it for lack of memory. A warning if its container lives on, else critical.",
    common: &COMMON,
    own: &[],
};

/// What was too small, as the evidence has it.
pub const OWN: &str = "own";
pub const POD: &str = "pod";
pub const NODE: &str = "node";
/// A headline has 128 characters in an object.
const PATH_MAX: usize = 80;
/// What ended with the victim.
const CONTAINER: &str = "container";
const PROCESS: &str = "process";

/// A kill, and whose the cgroups are that it names.
#[derive(Debug)]
pub struct Found<'a> {
    pub kill: &'a Kill,
    pub who: &'a Workload,
    /// At the cgroup whose limit was hit.
    pub limit: Option<Arc<Workload>>,
    pub asker: Option<Arc<Workload>>,
}

/// What is said of a kill.
pub fn found(found: &Found<'_>) -> (Severity, SignalEvidence) {
    let Found { kill, who, limit: limit_of, asker } = found;
    let mut victims: Vec<&Victim> = kill.victims.iter().collect();
    victims.sort_by_key(|victim| std::cmp::Reverse(victim.sizes.resident()));
    let largest = victims.first();
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let size = |of: fn(&Victim) -> u64| largest.map(|victim| count(of(victim)));
    let firsts: Option<Vec<bool>> = victims.iter().map(|victim| victim.first).collect();
    let ended = firsts.filter(|all| !all.is_empty()).map(|all| all.into_iter().any(|first| first));
    let names: Vec<String> = victims.iter().map(|v| process(&v.comm, v.tgid)).collect();
    let by = kill.asker.as_ref();
    let numbers = MemoryNumbers {
        limit_bytes: match &kill.limit {
            Limit::Cgroup { max, .. } => Some(count(*max)),
            Limit::Node | Limit::Unknown => None,
        },
        oom_kills: Some(count(kill.kills)),
        oom_limit: limit_word(&kill.limit, who, limit_of.as_deref()),
        oom_victims: largest.map(|_| names.join(", ")),
        oom_ended: ended.map(|container| if container { CONTAINER } else { PROCESS }.to_owned()),
        oom_uid: largest.map(|victim| victim.uid.into()),
        oom_score_adj: largest.map(|victim| victim.score_adj.into()),
        oom_peak_bytes: size(|victim| victim.sizes.resident()),
        oom_anon_bytes: size(|victim| victim.sizes.anon),
        oom_file_bytes: size(|victim| victim.sizes.file),
        oom_shmem_bytes: size(|victim| victim.sizes.shmem),
        oom_swap_bytes: size(|victim| victim.sizes.swap),
        oom_asked_by: by.filter(|by| !by.lowered).map(|by| asked_by(by, who, asker.as_deref())),
        oom_lowered_by: by.filter(|by| by.lowered).map(|by| process(&by.comm, by.tgid)),
        ..MemoryNumbers::default()
    };
    let severity = if ended == Some(false) { Severity::Warning } else { Severity::Critical };
    (severity, SignalEvidence { memory: Some(numbers), ..SignalEvidence::default() })
}

/// A process may call itself what it likes.
fn process(comm: &str, pid: u32) -> String {
    format!("{} ({pid})", made_plain(comm))
}

fn limit_word(limit: &Limit, who: &Workload, limit_of: Option<&Workload>) -> Option<String> {
    match limit {
        Limit::Unknown => None,
        Limit::Node => Some(NODE.to_owned()),
        Limit::Cgroup { path, .. } => match limit_of {
            Some(of) if of.cgroup == who.cgroup => Some(OWN.to_owned()),
            Some(of) if of.kind == WorkloadKind::Pod => Some(POD.to_owned()),
            _ => path.as_deref().map(|path| made_plain(path).into_owned()),
        },
    }
}

/// `stress (4712) in container sidecar`. The name of a pod in another namespace is not for everyone who may see this one.
fn asked_by(by: &Asker, who: &Workload, whose: Option<&Workload>) -> String {
    let mut text = process(&by.comm, by.tgid);
    let Some(whose) = whose.filter(|whose| whose.cgroup != who.cgroup) else { return text };
    let same_pod = who.pod_uid.is_some() && whose.pod_uid == who.pod_uid;
    // Writing to a String cannot fail.
    let _ = match (&whose.container, same_pod) {
        (Some(container), true) => write!(text, " in container {container}"),
        _ if whose.namespace.is_some() && whose.namespace != who.namespace => {
            write!(text, " of a pod in another namespace")
        }
        _ => write!(text, " of {}", made_plain(&whose.label())),
    };
    text
}

impl Kind for OomKill {
    fn brief(&self) -> &'static str {
        "The kernel killed a process of it for lack of memory."
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&SECTION)
    }

    /// Every kill counts, of which the last is shown.
    fn again(&self, before: &SignalEvidence, now: &mut SignalEvidence) {
        if let (Some(before), Some(memory)) = (before.memory().oom_kills, &mut now.memory) {
            memory.oom_kills = Some(memory.oom_kills.unwrap_or_default().saturating_add(before));
        }
    }

    fn size(&self, numbers: &SignalEvidence) -> f64 {
        numbers.memory().oom_kills.unwrap_or_default() as f64
    }

    /// `OOM kill at its limit of 256.0 MiB`
    fn headline(&self, numbers: &SignalEvidence) -> String {
        let memory = numbers.memory();
        let limit = memory.limit_bytes.map(|limit| format!(" of {}", bytes(limit))).unwrap_or_default();
        match (memory.oom_limit.as_deref(), memory.oom_peak_bytes) {
            (Some(NODE), _) => "OOM kill: the node had no memory".to_owned(),
            (Some(_), _) if memory.oom_lowered_by.is_some() => {
                format!(
                    "OOM kill: its limit was lowered to {}",
                    bytes(memory.limit_bytes.unwrap_or_default())
                )
            }
            (Some(OWN), _) => format!("OOM kill at its limit{limit}"),
            (Some(POD), _) => format!("OOM kill at its pod's limit{limit}"),
            (Some(path), _) => format!("OOM kill at the limit of {}{limit}", bounds::name(path, PATH_MAX)),
            (None, Some(peak)) => format!("OOM kill at {}", bytes(peak)),
            (None, None) => "OOM kill".to_owned(),
        }
    }

    /// ": java (4711) held 251.3 MiB, asked for by java (4711), its container ends"
    fn details(&self, whisper: &Whisper) -> String {
        let memory = whisper.evidence.memory();
        let several = memory.oom_kills.filter(|n| *n > 1).map(|n| format!("{n} kills so far"));
        let Some(victims) = &memory.oom_victims else {
            let unseen = " (counted by the kernel; who was killed is not known here)".to_owned();
            return unseen + &super::phrases(": ", [several]);
        };
        let by = match (&memory.oom_lowered_by, &memory.oom_asked_by) {
            (Some(by), _) => Some(format!("lowered by {by}")),
            (None, Some(by)) if by != victims => Some(format!("asked for by {by}")),
            _ => None,
        };
        let ended = memory.oom_ended.as_deref().map(|ended| match ended {
            CONTAINER => "the container's first process".to_owned(),
            _ => "its container lives on".to_owned(),
        });
        let held = memory.oom_peak_bytes.map(|held| format!(" held {}", bytes(held))).unwrap_or_default();
        super::phrases(": ", [Some(format!("{victims}{held}")), by, ended, several])
    }

    fn sentence(&self, who: &str, numbers: &SignalEvidence) -> Option<String> {
        let memory = numbers.memory();
        let victims = memory.oom_victims.as_ref()?;
        let why = match memory.oom_limit.as_deref()? {
            NODE => "the node had no memory".to_owned(),
            _ if memory.oom_lowered_by.is_some() => {
                "its memory limit was lowered below what it held".to_owned()
            }
            OWN => "it reached its memory limit".to_owned(),
            POD => "its pod reached its memory limit".to_owned(),
            path => format!("{path} reached its memory limit"),
        };
        Some(format!("The kernel killed {victims} of {who} because {why}"))
    }

    fn advise(&self, evidence: &Evidence, node: NodeFacts) -> Recommendation {
        let memory = evidence.numbers.memory();
        if memory.oom_limit.as_deref() == Some(NODE) {
            return Recommendation::none(
                "the node had no memory left, whatever this container's limit: look at who grew, and at memory requests \
                 that are below what is used.",
            );
        }
        if let Some(by) = &memory.oom_lowered_by {
            return Recommendation::none(format!(
                "{by} set the memory limit below what was held: it was this change, and no growth."
            ));
        }
        advice::memory::short(evidence, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::SignalKind;
    use crate::kernel::oom::{Place, Sizes};
    use crate::plain::Printable;
    use crate::signals::whisper::Transition;
    use crate::sinks::testdata;

    const MIB: u64 = 1 << 20;

    fn victim(tgid: u32, mebibytes: u64, first: Option<bool>) -> Victim {
        let sizes = Sizes { anon: mebibytes * MIB, ..Sizes::default() };
        Victim { tgid, comm: "java".into(), uid: 1000, score_adj: 969, sizes, first }
    }

    fn kill(victims: Vec<Victim>, limit: Limit, lowered: bool) -> Kill {
        let asker = Asker { tgid: 9, comm: "curl".into(), place: Place::default(), kernel: false, lowered };
        let kills = victims.len() as u64;
        Kill {
            at_ns: 1,
            place: Place::default(),
            group: kills > 1,
            kills,
            victims,
            limit,
            asker: Some(asker),
        }
    }

    fn at(max: u64) -> Limit {
        Limit::Cgroup { path: Some("/above".into()), used: max, max, with_swap: false }
    }

    fn said(
        kill: &Kill,
        who: &Arc<Workload>,
        limit: Option<Arc<Workload>>,
    ) -> (Severity, String, SignalEvidence) {
        let (severity, evidence) = found(&Found { kill, who, limit, asker: Some(who.clone()) });
        let of = testdata::whisper(who, SignalKind::OomKill, Transition::Started, 0);
        let whisper = Whisper { evidence, ..of };
        let text = OomKill.headline(&whisper.evidence) + &OomKill.details(&whisper);
        (severity, Printable(&text).to_string(), whisper.evidence)
    }

    #[test]
    fn each_limit_has_its_words() {
        let who = testdata::container("shop", "web", "app");
        let pod = Arc::new(Workload { kind: WorkloadKind::Pod, cgroup: "/above".into(), ..(*who).clone() });
        let one = || vec![victim(4711, 60, Some(true))];
        for (limit, limit_of, expected) in [
            (at(64 * MIB), Some(who.clone()), "OOM kill at its limit of 64.0 MiB: "),
            (at(64 * MIB), Some(pod), "OOM kill at its pod's limit of 64.0 MiB: "),
            (at(64 * MIB), None, "OOM kill at the limit of /above of 64.0 MiB: "),
            (Limit::Node, None, "OOM kill: the node had no memory: "),
        ] {
            let (severity, text, _) = said(&kill(one(), limit, false), &who, limit_of);
            let rest = "java (4711) held 60.0 MiB, asked for by curl (9), the container's first process";
            assert_eq!((severity, text), (Severity::Critical, format!("{expected}{rest}")));
        }
        let (_, text, _) = said(&kill(one(), at(8 * MIB), true), &who, Some(who.clone()));
        assert!(text.starts_with("OOM kill: its limit was lowered to 8.0 MiB: "), "{text}");
        assert!(text.contains(", lowered by curl (9), "), "{text}");
    }

    #[test]
    fn a_child_is_a_warning_and_a_group_is_told_by_its_largest() {
        let who = testdata::container("shop", "web", "app");
        let child = kill(vec![victim(5, 60, Some(false))], at(64 * MIB), false);
        let (severity, text, _) = said(&child, &who, Some(who.clone()));
        assert!(severity == Severity::Warning && text.ends_with("its container lives on"), "{text}");
        let group = kill(vec![victim(5, 3, Some(false)), victim(6, 60, Some(true))], at(64 * MIB), false);
        let (severity, text, evidence) = said(&group, &who, Some(who.clone()));
        assert!(
            severity == Severity::Critical && text.contains("java (6), java (5) held 60.0 MiB"),
            "{text}"
        );
        assert_eq!((evidence.memory().oom_kills, evidence.memory().oom_uid), (Some(2), Some(1000)));
    }

    #[test]
    fn what_is_only_counted_says_so_and_counts_add_up() {
        let who = testdata::container("shop", "web", "app");
        let counted = Kill { kills: 3, asker: None, ..kill(Vec::new(), Limit::Unknown, false) };
        let (severity, text, before) = said(&counted, &who, None);
        assert_eq!(severity, Severity::Critical);
        assert!(text.starts_with("OOM kill (counted by the kernel;"), "{text}");
        let mut now = before.clone();
        OomKill.again(&before, &mut now);
        assert_eq!(now.memory().oom_kills, Some(6));
    }
}
