//! From an agent's birth event to a status that may be stored: every name, number and list is checked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::check;
use crate::api::{PodBirthCertificateStatus, Source};
use crate::bounds::{self, ACTION, DNS_NAME, PROGRAM, SENTENCE, WORD};
use crate::names::birth as attr;
use crate::reconciler::refusal::{Reason, Refusal};

/// A certificate is some kilobytes.
const JSON_MAX: usize = 512 << 10;
/// A birth is watched for an hour at most; a start before it began (a pod that waited for its node) may be days.
const MS_MAX: f64 = 30.0 * 86_400e3;

/// A birth that an agent certifies, checked and bounded, its pod not yet believed to exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Certified {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub at: Timestamp,
    pub status: PodBirthCertificateStatus,
}

/// Reads the status out of the event's attribute.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn status(json: &str) -> Result<PodBirthCertificateStatus, Refusal> {
    if json.len() > JSON_MAX {
        let why = format!("is {} bytes, at most {JSON_MAX} are read", json.len());
        return Err(Refusal::of(Reason::TooMuch, attr::CERTIFICATE, why));
    }
    let mut status: PodBirthCertificateStatus = serde_json::from_str(json).map_err(|e| {
        let text: String = e.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        Refusal::of(Reason::BadField, attr::CERTIFICATE, text)
    })?;
    checked(&mut status)?;
    // Not the sender's to say.
    status.source = Source::Kernel;
    status.observed_generation = None;
    status.conditions.clear();
    status.trace_id = None;
    Ok(status)
}

/// Numbers, times and lists that cannot be are refused; a text that is too long is cut.
fn checked(status: &mut PodBirthCertificateStatus) -> Result<(), Refusal> {
    at_most("phases", status.phases.len(), 128)?;
    at_most("timeline", status.timeline.len(), 512)?;
    at_most("breakdown", status.breakdown.len(), 64)?;
    at_most("beside", status.beside.len(), 16)?;
    at_most("containers", status.containers.len(), 256)?;
    at_most("restarts", status.restarts.len(), 16)?;
    at_most("missing", status.missing.len(), 16)?;
    maybe(&mut status.total, WORD);
    if let Some(failure) = &mut status.failure {
        word("failure.phase", &mut failure.phase, WORD)?;
        maybe(&mut failure.container, DNS_NAME);
        word("failure.reason", &mut failure.reason, ACTION)?;
        maybe(&mut failure.message, SENTENCE);
    }
    if let Some(slow) = &mut status.slow {
        word("slow.phase", &mut slow.phase, WORD)?;
        length("slow.tookMs", Some(slow.took_ms))?;
        length("slow.usualMs", Some(slow.usual_ms))?;
    }
    for phase in &mut status.phases {
        word("phases.name", &mut phase.name, WORD)?;
        maybe(&mut phase.container, DNS_NAME);
        time("phases.startMs", Some(phase.start_ms))?;
        length("phases.durationMs", Some(phase.duration_ms))?;
        length("phases.uncertaintyMs", phase.uncertainty_ms)?;
    }
    for step in &mut status.timeline {
        time("timeline.timestampMs", Some(step.timestamp_ms))?;
        word("timeline.action", &mut step.action, ACTION)?;
        maybe(&mut step.details, SENTENCE);
        length("timeline.uncertaintyMs", step.uncertainty_ms)?;
    }
    if let Some(stats) = &status.kernel_stats {
        for (field, n) in [
            ("kernelStats.totalSyscalls", stats.total_syscalls),
            ("kernelStats.namespacesCreated", stats.namespaces_created),
            ("kernelStats.cgroupsCreated", stats.cgroups_created),
            ("kernelStats.cgroupWrites", stats.cgroup_writes),
            ("kernelStats.mounts", stats.mounts),
            ("kernelStats.pivotRoots", stats.pivot_roots),
            ("kernelStats.processes", stats.processes),
            ("kernelStats.programs", stats.programs),
            ("kernelStats.readBytes", stats.read_bytes),
            ("kernelStats.writtenBytes", stats.written_bytes),
            ("kernelStats.pageFaults", stats.page_faults),
            ("kernelStats.netfilterChanges", stats.netfilter_changes),
        ] {
            count(field, n)?;
        }
        length("kernelStats.totalDurationMs", stats.total_duration_ms)?;
        length("kernelStats.cpuMs", stats.cpu_ms)?;
        length("kernelStats.waitMs", stats.wait_ms)?;
        numbers("kernelStats.bySyscall", &stats.by_syscall)?;
        numbers("kernelStats.byNamespace", &stats.by_namespace)?;
        numbers("kernelStats.byCgroupFile", &stats.by_cgroup_file)?;
    }
    for cost in status.breakdown.iter_mut().chain(&mut status.beside) {
        word("breakdown.phase", &mut cost.phase, WORD)?;
        count("breakdown.processes", Some(cost.processes))?;
        count("breakdown.syscalls", cost.syscalls)?;
        length("breakdown.cpuMs", cost.cpu_ms)?;
        length("breakdown.waitMs", cost.wait_ms)?;
        count("breakdown.readBytes", cost.read_bytes)?;
        count("breakdown.writtenBytes", cost.written_bytes)?;
        count("breakdown.pageFaults", cost.page_faults)?;
        count("breakdown.programs", cost.programs)?;
        count("breakdown.forks", cost.forks)?;
        count("breakdown.cgroupsCreated", cost.cgroups_created)?;
        count("breakdown.cgroupWrites", cost.cgroup_writes)?;
        count("breakdown.mounts", cost.mounts)?;
        count("breakdown.pivotRoots", cost.pivot_roots)?;
        count("breakdown.netfilterChanges", cost.netfilter_changes)?;
        numbers("breakdown.bySyscall", &cost.by_syscall)?;
        numbers("breakdown.byNamespace", &cost.by_namespace)?;
        numbers("breakdown.byCgroupFile", &cost.by_cgroup_file)?;
    }
    for container in &mut status.containers {
        word("containers.name", &mut container.name, DNS_NAME)?;
        maybe(&mut container.id, WORD);
        maybe(&mut container.program, PROGRAM);
        time("containers.execMs", container.exec_ms)?;
        time("containers.listenMs", container.listen_ms)?;
        if container.port.is_some_and(|p| !(0..=65_535).contains(&p)) {
            return Err(check::bad("containers.port", "must be 0 to 65535"));
        }
        count("containers.mounts", container.mounts)?;
    }
    for restart in &mut status.restarts {
        word("restarts.container", &mut restart.container, DNS_NAME)?;
        time("restarts.execMs", restart.exec_ms)?;
        time("restarts.listenMs", restart.listen_ms)?;
        count("restarts.syscalls", restart.syscalls)?;
        maybe(&mut restart.failure, SENTENCE);
    }
    for part in &mut status.missing {
        word("missing.part", &mut part.part, WORD)?;
        cut(&mut part.why, SENTENCE);
    }
    Ok(())
}

fn at_most(field: &'static str, n: usize, most: usize) -> Result<(), Refusal> {
    if n <= most { Ok(()) } else { Err(check::bad(field, format!("must be at most {most}, are {n}"))) }
}

fn word(field: &'static str, text: &mut String, max: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(check::bad(field, "must not be empty"));
    }
    cut(text, max);
    Ok(())
}

fn maybe(text: &mut Option<String>, max: usize) {
    text.iter_mut().for_each(|text| cut(text, max));
}

fn cut(text: &mut String, max: usize) {
    if let Cow::Owned(cut) = bounds::sentence(text, max) {
        *text = cut;
    }
}

fn numbers(field: &'static str, by: &BTreeMap<String, i64>) -> Result<(), Refusal> {
    at_most(field, by.len(), 64)?;
    by.iter().try_for_each(|(key, n)| {
        if key.is_empty() {
            return Err(check::bad(field, "must not have an empty name"));
        }
        check::text(field, key, ACTION)?;
        count(field, Some(*n))
    })
}

fn count(field: &'static str, n: Option<i64>) -> Result<(), Refusal> {
    n.map_or(Ok(()), |n| check::count(field, n).map(|_| ()))
}

fn time(field: &'static str, ms: Option<f64>) -> Result<(), Refusal> {
    length(field, ms.map(f64::abs))
}

fn length(field: &'static str, ms: Option<f64>) -> Result<(), Refusal> {
    match ms {
        Some(ms) if !(0.0..=MS_MAX).contains(&ms) => {
            Err(check::bad(field, format!("must be 0 to {MS_MAX} ms, is {ms}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(field: &str) -> Result<PodBirthCertificateStatus, Refusal> {
        status(&format!(r#"{{"source":"reported","outcome":"complete",{field}}}"#))
    }

    #[test]
    fn who_says_it_is_not_the_senders_to_say() {
        let status = with(r#""observedGeneration":7,"traceId":"x","total":"5 ms""#).expect("good");
        assert_eq!(
            (status.source, status.observed_generation, status.trace_id),
            (Source::Kernel, None, None)
        );
    }

    /// A text decides nothing: it is made fit to be shown.
    #[test]
    fn a_text_is_cut_and_the_birth_taken() {
        let long = "x".repeat(10_000);
        let json = format!(
            r#""timeline":[{{"timestampMs":0,"actor":"cni","action":"a\u001b[31mb","details":"{long}"}}],
               "missing":[{{"part":"recorder","why":"{long}"}}]"#
        );
        let status = with(&json).expect("taken");
        assert_eq!(status.timeline[0].action, "a\u{fffd}[31mb");
        let details = status.timeline[0].details.as_deref().expect("details");
        assert!(details.len() <= SENTENCE && details.ends_with('…'), "{details}");
        assert!(status.missing[0].why.len() <= SENTENCE);
    }

    #[test]
    fn what_cannot_be_true_is_refused_by_its_name() {
        for (json, field) in [
            (r#""kernelStats":{"totalSyscalls":-1}"#, "kernelStats.totalSyscalls"),
            (r#""kernelStats":{"mounts":9223372036854775807}"#, "kernelStats.mounts"),
            (r#""kernelStats":{"bySyscall":{"":1}}"#, "kernelStats.bySyscall"),
            (r#""phases":[{"name":"x","startMs":0,"durationMs":-1}]"#, "phases.durationMs"),
            (r#""phases":[{"name":"","startMs":0,"durationMs":1}]"#, "phases.name"),
            (r#""phases":[{"name":"x","startMs":1e300,"durationMs":1}]"#, "phases.startMs"),
            (r#""timeline":[{"timestampMs":0,"actor":"cni","action":""}]"#, "timeline.action"),
            (r#""containers":[{"name":"c","port":65536}]"#, "containers.port"),
            (r#""timeline":[{"timestampMs":0,"actor":"nobody","action":"x"}]"#, attr::CERTIFICATE),
            (r#""outcome":"#, attr::CERTIFICATE),
        ] {
            let refusal = with(json).expect_err(json);
            assert_eq!(refusal.field.as_deref(), Some(field), "{json}");
            assert!(!refusal.to_string().contains('\n'));
        }
        let many = vec![r#"{"name":"x","startMs":0,"durationMs":1}"#; 129].join(",");
        assert_eq!(with(&format!(r#""phases":[{many}]"#)).unwrap_err().field.as_deref(), Some("phases"));
        assert_eq!(status(&" ".repeat(JSON_MAX + 1)).unwrap_err().reason, Reason::TooMuch);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_panics(text in ".{0,200}") {
            let _ = status(&text);
            let _ = with(&text);
        }
    }
}
