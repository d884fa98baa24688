//! The state of one pod: its signals, what the metrics said, what was done.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque, btree_map};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Now, PodKey, Rules, Stored, Taken, Want, render};
use crate::advice::Recommendation;
use crate::api::{
    KernelWhisper, MetricsSay, Remediation, Severity, SignalEvidence, SignalKind, Source, WhisperState,
};
use crate::reconciler::lookup::metrics;
use crate::reconciler::report::{Evidence, PodMetrics, Report, ResolvedReport, Silence, Verdict};
use crate::reconciler::resize::step;
use crate::signals::kinds::recommend;

/// Signals of one pod; the schema allows 256.
pub(super) const SIGNALS_MAX: usize = 128;

/// One pod.
pub(crate) struct PodState {
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) signals: BTreeMap<(String, SignalKind), SignalState>,
    pub(crate) metrics: Option<MetricsSay>,
    pub(crate) silence: Silence,
    /// The last two answers of the Metrics API, newest first: the newest may end after the history.
    snapshots: VecDeque<Arc<PodMetrics>>,
    /// The advice a restart found in the object and the signal it was for, until a report brings new.
    pub(crate) restored_advice: Option<((String, SignalKind), String)>,
    pub(crate) remediation: Option<Remediation>,
    pub(crate) conditions: Vec<Condition>,
    pub(super) stored: Option<Stored>,
    /// When it was last told so.
    pub(super) stored_at: Instant,
    /// When it was found in the API with nothing in it: it was written half when the last reconciler ended.
    pub(super) found_empty: Option<Instant>,
    /// When it was last handed to the writer.
    pub(super) written: Option<Instant>,
    /// Something happened that must be seen at once.
    pub(super) changed: bool,
    /// It was said again, and nobody has looked yet whether the numbers moved.
    stale: bool,
    /// It was said again since it was written, in much the same numbers.
    behind: bool,
    /// The numbers as last written.
    significant: Vec<f64>,
}

/// One signal of one container.
pub(crate) struct SignalState {
    pub(crate) source: Source,
    pub(crate) active: bool,
    pub(crate) severity: Severity,
    pub(crate) since: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) resolved_at: Option<Timestamp>,
    pub(crate) count: i64,
    pub(crate) numbers: SignalEvidence,
    pub(crate) advice: Option<Recommendation>,
    /// When it was last said, in our clock.
    heard: Instant,
}

impl PodState {
    pub(super) fn new(uid: String, node: String, now: Now) -> PodState {
        PodState {
            uid,
            node,
            signals: BTreeMap::new(),
            metrics: None,
            silence: Silence::NotAsked,
            snapshots: VecDeque::with_capacity(2),
            restored_advice: None,
            remediation: None,
            conditions: Vec::new(),
            stored: None,
            stored_at: now.mono,
            found_empty: None,
            written: None,
            changed: false,
            stale: false,
            behind: false,
            significant: Vec::new(),
        }
    }

    /// The state an object tells of. What it says is active gets the full time to be said again.
    pub(super) fn restored(kw: &KernelWhisper, stored: Stored, rules: &Rules, now: Now) -> PodState {
        let mut state = PodState::new(kw.spec.pod_uid.clone(), kw.spec.node_name.clone(), now);
        state.stored = Some(stored);
        let Some(status) = &kw.status else {
            state.found_empty = Some(now.mono);
            return state;
        };
        let signals = status.signals.iter().map(|s| {
            let signal = SignalState {
                source: s.source,
                active: s.state == WhisperState::Active,
                severity: s.severity,
                since: s.since.0,
                last_seen: s.last_seen.0,
                resolved_at: s.resolved_at.as_ref().map(|t| t.0),
                count: s.count,
                numbers: s.evidence.clone(),
                advice: None,
                heard: now.mono,
            };
            ((s.container.clone(), s.kind), signal)
        });
        state.signals = signals.collect();
        state.metrics = status.metrics_say.clone();
        // It is for the signal that the status is about.
        let about = status.kernel_truth.as_ref().map(|t| (t.container.clone(), status.signal));
        state.restored_advice = about.zip(status.recommendation.clone());
        state.remediation = status.remediation.clone();
        state.conditions = status.conditions.clone();
        if rules.remediation_off {
            state.step_is_left(now);
        }
        if rules.withhold_neighbours {
            state.withhold(kw.metadata.namespace.as_deref().unwrap_or_default());
        }
        state
    }

    /// A step under way that nobody goes on with: that is said at once.
    fn step_is_left(&mut self, now: Now) {
        if let Some(left) = self.remediation.as_ref().and_then(|r| step::off(r, now.wall)) {
            self.remediation = Some(left);
            self.changed = true;
        }
    }

    /// The names are withheld only since: they leave the object at once, and the advice that may have
    /// one in its text with them.
    fn withhold(&mut self, namespace: &str) {
        let mut any = false;
        for s in self.signals.values_mut() {
            any |= render::withhold(&mut s.numbers, namespace);
        }
        if any {
            self.restored_advice = None;
            self.changed = true;
        }
    }

    /// Takes a report of this pod.
    pub(super) fn say(&mut self, said: &ResolvedReport, withhold_neighbours: bool, now: Now) -> Taken {
        let numbers = render::numbers(&said.report, withhold_neighbours);
        let verdict = self.take(&said.report, numbers.clone(), now);
        if !matches!(verdict, Verdict::Changed | Verdict::Refreshed) {
            return Taken { verdict, candidate: None };
        }
        self.changed |= verdict == Verdict::Changed;
        self.stale = true;
        self.hear_metrics(said, now);
        Taken { verdict, candidate: self.advise(said, numbers) }
    }

    /// Delivery is at least once and may be out of order: a whisper's identity is its `since`, its
    /// news is newer than `last_seen`.
    fn take(&mut self, r: &Report, numbers: SignalEvidence, now: Now) -> Verdict {
        let fresh = |count: i64| SignalState {
            source: r.source,
            active: r.active,
            severity: r.severity,
            since: r.since,
            last_seen: r.at,
            resolved_at: (!r.active).then_some(r.at),
            count,
            numbers: numbers.clone(),
            advice: None,
            heard: now.mono,
        };
        let full = self.signals.len() >= SIGNALS_MAX;
        let s = match self.signals.entry((r.container.clone(), r.kind)) {
            btree_map::Entry::Vacant(_) if !r.active => return Verdict::Duplicate,
            btree_map::Entry::Vacant(_) if full => return Verdict::Full,
            btree_map::Entry::Vacant(entry) => {
                entry.insert(fresh(1));
                return Verdict::Changed;
            }
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
        };
        match (s.source, r.source) {
            (Source::Kernel, Source::Reported) => return Verdict::Superseded,
            (Source::Reported, Source::Kernel) if r.active => {
                *s = fresh(1);
                return Verdict::Changed;
            }
            (Source::Reported, Source::Kernel) => return Verdict::Duplicate,
            _ => {}
        }
        let over_now = s.active && !r.active;
        if r.at < s.last_seen || (r.at == s.last_seen && !over_now) {
            return Verdict::Duplicate;
        }
        // Others do not say when it began: while it is active it is the same whisper.
        let same = r.since == s.since || (r.source == Source::Reported && (s.active || !r.active));
        if !same && r.since < s.since {
            return Verdict::Duplicate;
        }
        if !same {
            *s = fresh(s.count.saturating_add(1));
            return Verdict::Changed;
        }
        if !r.active && !s.active {
            return Verdict::Duplicate;
        }
        let changed = s.active != r.active || s.severity != r.severity;
        // The last words carry no better numbers than the whisper itself: those stay.
        if r.active {
            s.severity = r.severity;
            s.numbers = numbers;
        }
        s.active = r.active;
        s.last_seen = r.at;
        s.resolved_at = (!r.active).then_some(r.at);
        s.heard = now.mono;
        if changed { Verdict::Changed } else { Verdict::Refreshed }
    }

    fn hear_metrics(&mut self, said: &ResolvedReport, now: Now) {
        let before = (self.metrics.is_some(), self.silence);
        match &said.metrics {
            Err(Silence::NotAsked) => return,
            Err(silence) => {
                self.silence = *silence;
                // What it said a moment ago carries its own time and stays true.
                let old = |m: &MetricsSay| now.wall.duration_since(m.timestamp.0).as_secs() > 120;
                if self.metrics.as_ref().is_some_and(old) {
                    self.metrics = None;
                }
            }
            Ok(metrics) => {
                if self.snapshots.front() != Some(metrics) {
                    self.snapshots.push_front(metrics.clone());
                    self.snapshots.truncate(2);
                }
                self.metrics = self.beside(said);
            }
        }
        self.changed |= before != (self.metrics.is_some(), self.silence);
    }

    /// What the metrics say with the kernel's count beside: by the newest answer whose window the
    /// history covers, else by the newest alone.
    fn beside(&self, said: &ResolvedReport) -> Option<MetricsSay> {
        let report = &said.report;
        let mut newest = None;
        for metrics in &self.snapshots {
            let Some(mut say) = metrics::say(metrics, &said.pod) else { continue };
            self.carry_over(&mut say);
            if metrics::beside(&mut say, &report.container, &report.history) {
                return Some(say);
            }
            newest.get_or_insert(say);
        }
        newest
    }

    /// What the kernel counted for other containers over the same window stays.
    fn carry_over(&self, say: &mut MetricsSay) {
        let Some(before) = self.metrics.as_ref().filter(|m| m.timestamp == say.timestamp) else { return };
        for c in &mut say.containers {
            if let Some(b) = before.containers.iter().find(|b| b.name == c.name) {
                c.kernel_cpu_cores = b.kernel_cpu_cores;
                c.kernel_throttled_cores = b.kernel_throttled_cores;
            }
        }
    }

    /// What to do about the signal this report is about.
    fn advise(
        &mut self,
        said: &ResolvedReport,
        numbers: SignalEvidence,
    ) -> Option<(Evidence, Recommendation, Option<Remediation>)> {
        let r = &said.report;
        let s = self.signals.get_mut(&(r.container.clone(), r.kind))?;
        let evidence = Evidence {
            pod: said.pod.clone(),
            container: r.container.clone(),
            kind: r.kind,
            source: r.source,
            severity: s.severity,
            active: s.active,
            since: s.since,
            last_seen: s.last_seen,
            numbers,
            history: r.history.as_slice().into(),
        };
        // The advice for a whisper that is over is the one given while it was not.
        let advice = match &s.advice {
            Some(advice) if !r.active => advice.clone(),
            _ => recommend(&evidence, said.node),
        };
        s.advice = Some(advice.clone());
        (r.source == Source::Kernel).then(|| (evidence, advice, self.remediation.clone()))
    }

    pub(super) fn slept(&mut self, how_long: Duration) {
        self.signals.values_mut().for_each(|s| s.heard += how_long);
        self.found_empty = self.found_empty.map(|at| at + how_long);
    }

    pub(super) fn age(&mut self, rules: &Rules, now: Now) {
        for s in self.signals.values_mut().filter(|s| s.active) {
            // Others may report less often than once a minute, at their own period.
            let period = s.numbers.window_seconds.unwrap_or_default();
            let stale_after = match s.source {
                Source::Kernel => rules.stale_after,
                Source::Reported => {
                    let twice = Duration::try_from_secs_f64(period * 2.0).unwrap_or_default();
                    rules.stale_after.max(twice.min(Duration::from_secs(7200)))
                }
            };
            if now.mono.duration_since(s.heard) > stale_after {
                s.active = false;
                s.resolved_at = Some(now.wall);
                self.changed = true;
            }
        }
        let keep = jiff::SignedDuration::try_from(rules.keep_resolved).unwrap_or(jiff::SignedDuration::MAX);
        let before = self.signals.len();
        self.signals
            .retain(|_, s| s.active || s.resolved_at.is_some_and(|t| now.wall.duration_since(t) < keep));
        self.changed |= self.signals.len() != before;
    }

    /// What is to be written now, if anything. To say the same once more is no reason to write: at
    /// 2,000 whispers that would be 40 writes a second for nothing.
    pub(super) fn want(&mut self, key: &PodKey, rules: &Rules, now: Now) -> Option<Want> {
        let written = self.written;
        let old = |age: Duration| written.is_none_or(|at| now.mono.duration_since(at) >= age);
        let moved = self.stale
            && old(rules.rewrite)
            && render::changed_materially(&self.significant, &render::significant_values(self));
        // Looked at once; what did not move by then waits for the refresh.
        if self.stale && old(rules.rewrite) {
            self.stale = false;
            self.behind = true;
        }
        let refresh = self.behind && old(rules.refresh);
        if self.signals.is_empty() || !(self.changed || moved || refresh) {
            return None;
        }
        let object = render::object(key, self, now.wall)?;
        self.conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        self.significant = render::significant_values(self);
        self.written = Some(now.mono);
        self.changed = false;
        self.stale = false;
        self.behind = false;
        Some(Want::Apply { object: Box::new(object), stored: self.stored.clone() })
    }

    /// The signal the object is about: active before resolved, critical before warning, the kernel's
    /// word before others', then the kind that hurts most, then the greater number.
    pub(crate) fn headline(&self) -> Option<(&(String, SignalKind), &SignalState)> {
        self.signals.iter().max_by(|(ka, a), (kb, b)| {
            let rank = |k: &(String, SignalKind), s: &SignalState| {
                (s.active, s.severity, s.source == Source::Kernel, Reverse(k.1))
            };
            rank(ka, a)
                .cmp(&rank(kb, b))
                .then(ka.1.kind().size(&a.numbers).total_cmp(&kb.1.kind().size(&b.numbers)))
                // Of equals the first by name, as `max_by` takes the last.
                .then(kb.cmp(ka))
        })
    }
}
