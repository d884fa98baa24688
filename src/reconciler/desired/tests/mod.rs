//! The desired state, told things at times of its own: what its tests share.

mod silence;
mod stored;
mod written;

use std::sync::Arc;

use super::pod::SIGNALS_MAX;
use super::*;
use crate::api::{CpuNumbers, RemediationState, Severity, SignalEvidence, SignalKind, Source, WhisperState};
use crate::evidence::HistoryPoint;
use crate::reconciler::report::{
    Answer, ContainerFacts, NamedNeighbour, NodeFacts, PodFacts, Report, Silence,
};

const MINUTE: u64 = 60;

/// A clock that tests wind, and a state driven by it.
struct Bench {
    d: Desired,
    start: Now,
    seconds: u64,
}

impl Bench {
    fn new(rules: Rules) -> Bench {
        let wall = "2026-11-21T06:00:00Z".parse().unwrap();
        Bench { d: Desired::new(rules), start: Now { mono: Instant::now(), wall }, seconds: 0 }
    }

    fn now(&self) -> Now {
        Now { mono: self.start.mono + Duration::from_secs(self.seconds), wall: self.wall(0) }
    }

    /// The wall clock, so many seconds off now.
    fn wall(&self, offset: i64) -> Timestamp {
        Timestamp::from_second(self.start.wall.as_second() + self.seconds as i64 + offset).unwrap()
    }

    fn report(&self) -> Report {
        Report {
            source: Source::Kernel,
            namespace: "shop".into(),
            pod: "web".into(),
            uid: Some("u1".into()),
            container: "main".into(),
            kind: SignalKind::CpuThrottle,
            severity: Severity::Critical,
            active: true,
            since: self.wall(0),
            at: self.wall(0),
            numbers: SignalEvidence {
                window_seconds: Some(10.0),
                cpu: Some(CpuNumbers {
                    throttled_percent: Some(80.0),
                    throttled_seconds: Some(8.0),
                    stalls: Some(99),
                    usage_cores: Some(0.2),
                    demand_cores: Some(1.0),
                    limit_cores: Some(0.2),
                    ..Default::default()
                }),
                ..Default::default()
            },
            neighbours: vec![],
            history: vec![],
        }
    }

    fn said(&self, report: Report) -> ResolvedReport {
        let main = ContainerFacts { name: "main".into(), cpu_limit_cores: Some(0.2), ..Default::default() };
        let pod = PodFacts {
            namespace: report.namespace.clone(),
            name: report.pod.clone(),
            uid: report.uid.clone().unwrap_or_else(|| "u1".into()),
            node: "n1".into(),
            containers: vec![main],
            ..Default::default()
        };
        ResolvedReport {
            report,
            pod: Arc::new(pod),
            metrics: Err(Silence::NotAsked),
            node: NodeFacts::default(),
        }
    }

    fn say(&mut self, report: Report) -> Verdict {
        let said = self.said(report);
        self.d.say(&said, self.now()).verdict
    }

    /// Says the standard report, `f` changed.
    fn say_with(&mut self, f: impl FnOnce(&mut Report)) -> Verdict {
        let mut r = self.report();
        f(&mut r);
        self.say(r)
    }

    fn written(&mut self) -> Option<KernelWhisper> {
        let now = self.now();
        match self.d.want(&key(), now)? {
            Want::Apply { object, .. } => Some(*object),
            Want::Delete { .. } => panic!("deleted"),
        }
    }

    /// Lets seconds pass one by one, as the engine does; all that was wanted meanwhile.
    fn pass(&mut self, seconds: u64) -> Vec<Want> {
        let mut wants = Vec::new();
        for _ in 0..seconds {
            self.seconds += 1;
            let now = self.now();
            wants.extend(self.d.sweep(now).into_iter().map(|(_, w)| w));
        }
        wants
    }
}

fn key() -> PodKey {
    PodKey { namespace: "shop".into(), pod: "web".into() }
}

fn status(kw: &KernelWhisper) -> &crate::api::KernelWhisperStatus {
    kw.status.as_ref().unwrap()
}

/// With a whisper over after three minutes of silence.
fn three_minutes() -> Rules {
    Rules { stale_after: Duration::from_secs(180), ..Rules::default() }
}
