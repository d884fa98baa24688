//! What becomes of a report that was taken: the object, which the API server must take too.

use std::sync::Arc;
use std::time::Instant;

use kernel_gossip::api::KernelWhisper;
use kernel_gossip::reconciler::desired::{Desired, Now, PodKey, Rules, Want};
use kernel_gossip::reconciler::report::{NodeFacts, PodFacts, Report, ResolvedReport, Silence};
use serde_json::Value;

use super::now;

/// What has been taken goes on to the objects: their text and numbers must fit the schema.
pub struct Downstream {
    desired: Desired,
    now: Now,
    pub taken: u64,
}

impl Downstream {
    pub fn new() -> Self {
        let now = Now { mono: Instant::now(), wall: now() };
        Downstream { desired: Desired::new(Rules { pods_max: 64, ..Rules::default() }), now, taken: 0 }
    }

    /// The object, if one is to be written now.
    pub fn take(&mut self, report: Report) -> Option<KernelWhisper> {
        self.taken += 1;
        let pod = PodFacts {
            namespace: report.namespace.clone(),
            name: report.pod.clone(),
            uid: report.uid.clone().unwrap_or_else(|| "u".into()),
            node: "n1".into(),
            ..Default::default()
        };
        let said = ResolvedReport {
            report,
            pod: Arc::new(pod),
            metrics: Err(Silence::NotAsked),
            node: NodeFacts { cpu_cores: Some(2.0), resizes: Some(true) },
        };
        self.desired.say(&said, self.now);
        let key = PodKey { namespace: said.pod.namespace.clone(), pod: said.pod.name.clone() };
        let object = match self.desired.want(&key, self.now) {
            Some(Want::Apply { object, .. }) => Some(*object),
            _ => None,
        };
        object.iter().for_each(fits);
        if self.taken.is_multiple_of(1000) {
            *self = Downstream { taken: self.taken, ..Downstream::new() };
        }
        object
    }
}

/// Lengths and ranges as the schema has them, and no NaN, which JSON would turn into null.
fn fits(kw: &KernelWhisper) {
    let status = kw.status.as_ref().unwrap();
    assert!(kw.metadata.name.as_ref().unwrap().len() <= 253);
    assert!(kw.metadata.labels.as_ref().unwrap().values().all(|v| v.len() <= 63));
    assert!(status.insight.chars().count() <= 2048 && status.kernel_evidence.chars().count() <= 2048);
    assert!(status.kernel_truth.as_ref().unwrap().summary.chars().count() <= 128);
    assert!(status.signals.len() <= 256);
    assert!(
        status.signals.iter().all(|s| s.text.chars().count() <= 1024 && s.evidence.neighbours.len() <= 8)
    );
    numbers("", &serde_json::to_value(kw).unwrap());
}

fn numbers(field: &str, value: &Value) {
    match value {
        Value::Null => panic!("{field} is a number that is none"),
        Value::Number(n) => assert!(n.as_f64().unwrap() >= 0.0 || field == "oomScoreAdj", "{field}: {n}"),
        Value::Array(all) => all.iter().for_each(|v| numbers(field, v)),
        Value::Object(all) => all.iter().for_each(|(field, v)| numbers(field, v)),
        _ => {}
    }
}
