//! Births that go on, for who looks on.

use super::Births;
use super::birth::{Birth, State};

/// A pod that is being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// `namespace/pod`, or its cgroup's path while the API server has not told its name.
    pub name: String,
    /// Its first sign of life, CLOCK_MONOTONIC, ns.
    pub since_ns: u64,
    /// Containers that were made, of how many; `None` while the API server has not told.
    pub containers: Option<(u32, u32)>,
}

impl Births {
    /// The births that go on now.
    pub fn under_way(&self) -> Vec<UnderWay> {
        let running = self.births.values().filter(|b| matches!(b.state, State::Running(_)));
        let mut all: Vec<_> = running.map(of).collect();
        all.sort_by(|a, b| (a.since_ns, &a.name).cmp(&(b.since_ns, &b.name)));
        all
    }
}

fn of(birth: &Birth) -> UnderWay {
    let record = birth.record.as_deref();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    UnderWay {
        name: record.map_or_else(|| birth.path.clone(), |r| format!("{}/{}", r.namespace, r.name)),
        since_ns: birth.zero.mono_ns,
        containers: record.map(|r| {
            let made = r.containers.iter().filter(|c| c.ids[0].is_some() || c.terminated.is_some());
            (count(made.count()), count(r.containers.len()))
        }),
    }
}
