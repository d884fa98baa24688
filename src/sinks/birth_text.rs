//! A birth in one line for people.

use crate::api::{BirthOutcome, KernelStats, SlowPhase};
use crate::birth::{Certificate, input};

/// "shop/web-0: born in 521 ms: 4812 syscalls, 6 namespaces, 41 cgroup writes, 29 mounts".
pub fn text(birth: &Certificate) -> String {
    let who = birth.who.label();
    let status = &birth.status;
    if birth.restart {
        let Some(last) = status.restarts.last() else {
            return format!("{who}: a container was started again");
        };
        let what = match (&last.failure, last.exec_ms) {
            (Some(why), _) => format!("failed: {why}"),
            (None, Some(ms)) => format!("ran its program {ms:.0} ms after its cgroup"),
            (None, None) => "how is not known".into(),
        };
        return format!("{who}: {} was started again, {what}", last.container);
    }
    let length = status.total.as_deref().unwrap_or("unknown time");
    let headline = status.kernel_stats.as_ref().map(headline).filter(|h| !h.is_empty());
    let headline = headline.map(|h| format!(": {h}")).unwrap_or_default();
    let slow = status.slow.as_ref().map(|s| format!("; slow_birth {}", slow(s))).unwrap_or_default();
    match status.outcome {
        Some(BirthOutcome::Complete) | None => {
            format!("{who}: born in {length}{headline}{slow}")
        }
        Some(outcome) => {
            let failure = status.failure.as_ref();
            let phase = failure.map(|f| format!(" in phase {}", f.phase)).unwrap_or_default();
            let of = failure.and_then(|f| f.container.as_ref()).map(|c| format!(", {c}")).unwrap_or_default();
            let why = failure.map(|f| match &f.message {
                Some(message) => format!(", {}: {message}", f.reason),
                None => format!(", {}", f.reason),
            });
            let why = why.unwrap_or_default();
            format!("{who}: birth {} after {length}{phase}{of}{why}{headline}{slow}", outcome.as_str())
        }
    }
}

/// "4812 syscalls, 6 namespaces, 41 cgroup writes, 29 mounts": what is known of it.
pub fn headline(stats: &KernelStats) -> String {
    let parts = [
        (stats.total_syscalls, "syscalls"),
        (stats.namespaces_created, "namespaces"),
        (stats.cgroup_writes, "cgroup writes"),
        (stats.mounts, "mounts"),
    ];
    let known = parts.iter().filter_map(|(n, what)| n.map(|n| format!("{n} {what}")));
    known.collect::<Vec<_>>().join(", ")
}

/// "warning: image took 5.0 s, usually 900 ms".
pub fn slow(slow: &SlowPhase) -> String {
    let (took, usual) = (input::length(slow.took_ms), input::length(slow.usual_ms));
    format!("{}: {} took {took}, usually {usual}", slow.severity.as_str(), slow.phase)
}
