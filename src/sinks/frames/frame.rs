//! The one type that is shown, recorded, sent and read again.

use std::fmt::{self, Display, Formatter};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds;
use crate::evidence::Severity;
use crate::plain::Printable;

/// Text that others chose, with what would do something to a terminal spelled out. There is no other way to make one, by
/// reading a recording or an agent's answer either: no name can write on the screen of who looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shown(Arc<str>);

impl Shown {
    pub fn new(text: &str) -> Shown {
        Shown(Printable(text).to_string().into())
    }

    /// The same of what is called so, no longer than a name may be: whoever makes 4,096 cgroups with paths of 4,096 bytes
    /// must not make a frame longer than a reader takes.
    pub fn name(name: &str) -> Shown {
        Shown(bounds::name(&Printable(name).to_string(), bounds::NAME).into())
    }
}

impl Deref for Shown {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shown, D::Error> {
        Ok(Shown::new(&String::deserialize(deserializer)?))
    }
}

/// Moments in JSON: RFC 3339 with nanoseconds, as most readers take numbers for doubles, which cannot hold them.
pub mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// # Errors
    /// It cannot be written.
    pub fn serialize<S: Serializer>(unix_ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        // Never out of range: 64 bits of ns end in the year 2554.
        let at = Timestamp::from_nanosecond(i128::from(*unix_ns)).unwrap_or(Timestamp::MAX);
        serializer.collect_str(&at)
    }

    /// # Errors
    /// It is none, or one before 1970 or after 2554.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let at: Timestamp = String::deserialize(deserializer)?.parse().map_err(de::Error::custom)?;
        u64::try_from(at.as_nanosecond()).map_err(de::Error::custom)
    }
}

/// What happened on a node in one interval. Absent is unknown, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frame {
    /// Counts the intervals, from 1.
    pub number: u64,
    /// Its end, ns since the Unix epoch.
    #[serde(rename = "at", with = "moment")]
    pub at_unix_ns: u64,
    /// Its length, seconds, as measured.
    pub seconds: f64,
    /// CPUs of the machine that are online; 0: unknown.
    pub cpus: u32,
    /// Workloads that did something or waited for something, the most time lost first.
    pub workloads: Vec<Row>,
    /// Workloads that did nothing.
    pub idle: u32,
    /// What was whispered since the frame before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whispers: Vec<Said>,
    /// Pods that are being started now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub births: Vec<Birth>,
    /// Births that were certified since the frame before, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub born: Vec<Said>,
    /// Whispers and births that did not fit in.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One workload in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Row {
    /// What whispers and metrics call it.
    pub name: Shown,
    /// The path of its cgroup: unique on its node.
    pub cgroup: Shown,
    /// Share of the interval, percent, in which some of it could not go on: stopped by its limit, kept off the CPU by a
    /// neighbour, or waiting for memory or a disk. At most 100.
    pub lost_percent: f64,
    /// CPU used, cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_cores: Option<f64>,
    /// The CPU limit that binds, cores; absent when unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_cores: Option<f64>,
    /// Where the time of its threads went; absent without the CPU probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Throttled time, wall, percent of the interval. Without the CPU probe it is at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    /// Throttled time, per CPU, seconds: what `cpu.stat` grew by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_seconds: Option<f64>,
    /// Time in which at least one thread waited for a CPU on which a neighbour ran, percent of the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contended_percent: Option<f64>,
    /// Time in which at least one task waited for memory (PSI), percent of the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// The same for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_percent: Option<f64>,
    /// Who ran while its threads waited, the greatest part first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blame: Vec<Blamed>,
    /// What is whispered of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whispers: Vec<Active>,
}

/// Time of a workload's threads on a CPU and in the run queues, seconds, summed over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Split {
    /// On a CPU.
    pub run: f64,
    /// Stopped by a CPU quota.
    pub throttle: f64,
    /// Another workload ran.
    pub neighbour: f64,
    /// Another thread of its own ran.
    pub own: f64,
    /// The rest of the wait: nobody's.
    pub unattributed: f64,
}

impl Split {
    pub fn total(&self) -> f64 {
        self.run + self.throttle + self.neighbour + self.own + self.unattributed
    }
}

/// A neighbour that ran while the workload's threads waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blamed {
    pub name: Shown,
    pub cgroup: Shown,
    /// Summed over the threads that waited.
    pub seconds: f64,
}

/// A whisper that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Active {
    pub signal: Shown,
    pub severity: Severity,
}

/// One line that was said: a whisper, or a birth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Said {
    /// ns since the Unix epoch.
    #[serde(rename = "at", with = "moment")]
    pub at_unix_ns: u64,
    /// The workload's name and the path of its cgroup.
    pub name: Shown,
    pub cgroup: Shown,
    /// Of a whisper; a birth has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// `started`, `changed`, `repeated` or `resolved`; of a birth `born`.
    pub transition: Shown,
    /// As the agent says it, without its time and severity.
    pub text: Shown,
}

/// A pod that is being started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Birth {
    /// `namespace/pod`, or its UID while nobody has told its name.
    pub name: Shown,
    /// Since its first sign of life, seconds.
    pub seconds: f64,
    /// Containers that were made, of how many; absent without the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<(u32, u32)>,
}
