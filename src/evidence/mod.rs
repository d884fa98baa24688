//! The numbers behind a signal: one struct and one table of fields a resource, used by the agent, on the wire and in the
//! objects alike; and the words that both halves of the program have for a signal.
//!
//! A number is one row of its resource's table. The attributes of the OTLP event, the JSON lines, the decoder with its
//! checks, what an object holds and how it is rounded, the registry (`docs/semconv/registry/evidence.yaml`) and
//! docs/metrics.md are loops over the tables.
//!
//! Inside belongs what is the same in the agent, on the wire and in the objects. How any of it is measured, or told to people,
//! does not.

mod birth;
mod cpu;
mod field;
mod history;
mod io;
mod memory;
mod network;
mod words;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

pub use birth::BirthNumbers;
pub use cpu::CpuNumbers;
pub use field::{Field, Resource, Type, Value, Wrong};
pub use history::HistoryPoint;
pub use io::IoNumbers;
pub use memory::{MemoryNumbers, cause as memory_cause};
pub use network::NetworkNumbers;
pub(crate) use words::kinds;
pub use words::{Severity, SignalKind, Source, WhisperState};

/// The numbers behind one signal; which are there depends on its type. Absent is unknown, never zero.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalEvidence {
    /// Length of the window they are about, as measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuNumbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryNumbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoNumbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkNumbers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<BirthNumbers>,
    // The agent, to which they are workloads, keeps them beside.
    /// Who ran while it waited for a CPU, or grew while the node was short of memory, the greatest share first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub neighbours: Vec<NeighbourShare>,
}

/// A workload that ran while the pod waited for a CPU, or grew while it waited for a node's memory.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighbourShare {
    /// `namespace/pod/container`, a systemd unit or a cgroup path; `another namespace` where its
    /// name is withheld.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// The name is withheld: one or several neighbours in other namespaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// Its share of the time in which at least one thread waited, percent of the window.
    #[schemars(range(min = 0))]
    pub percent: f64,
}

/// A resource of [`SignalEvidence`]: its table, and the place of its numbers.
macro_rules! resources {
    ($($place:ident: $numbers:ident),*) => {
        /// Every resource, in the order in which its numbers are told.
        pub static RESOURCES: [&Resource; [$(stringify!($place)),*].len()] = [$(&$numbers::RESOURCE),*];

        impl SignalEvidence {
            /// Every number that is known, with its row.
            pub fn known(&self) -> impl Iterator<Item = (&'static Field, Value)> + use<> {
                let mut all = Vec::new();
                $(if let Some(numbers) = &self.$place { numbers.known(&mut all); })*
                all.into_iter()
            }

            /// Fills in every number that `read` knows by its attribute's name.
            ///
            /// # Errors
            /// What `read` says is wrong.
            pub fn read<E>(
                &mut self,
                mut read: impl FnMut(&'static Field, &'static str) -> Result<Option<Value>, E>,
            ) -> Result<(), E> {
                $({
                    let mut numbers = $numbers::default();
                    numbers.read(&mut read)?;
                    self.$place = (numbers != $numbers::default()).then_some(numbers);
                })*
                Ok(())
            }

            /// Rounds what is measured: see [`tidy`].
            pub fn round(&mut self) {
                self.window_seconds = self.window_seconds.map(tidy);
                $(if let Some(numbers) = &mut self.$place { numbers.round(); })*
            }

            /// Cuts texts that are too long and leaves out numbers that cannot be, so that whoever checks them takes the
            /// rest; how many were left out.
            pub fn bound(&mut self) -> u64 {
                let mut left_out = 0;
                $(if let Some(numbers) = &mut self.$place { left_out += numbers.bound(); })*
                left_out
            }

            /// Known numbers in every row that the agent sends: for tests.
            #[doc(hidden)]
            pub fn with_all(mut self, value: impl Fn(&'static Field) -> Value) -> Self {
                let _ = self.read(|field, _| Ok::<_, std::convert::Infallible>(Some(value(field))));
                self
            }
        }
    };
}
resources!(cpu: CpuNumbers, memory: MemoryNumbers, io: IoNumbers, network: NetworkNumbers, birth: BirthNumbers);

impl SignalEvidence {
    /// The CPU numbers; all unknown where there are none.
    pub fn cpu(&self) -> &CpuNumbers {
        static NONE: std::sync::LazyLock<CpuNumbers> = std::sync::LazyLock::new(CpuNumbers::default);
        self.cpu.as_ref().unwrap_or(&NONE)
    }

    /// Time in which at least one thread waited for neighbours, percent of the window, and how many did at a time.
    pub fn contended(&self) -> Option<Contended> {
        let cpu = self.cpu.as_ref()?;
        contended(cpu.contended_seconds, cpu.wait_neighbour_seconds, self.window_seconds?)
    }

    /// The network numbers; all unknown where there are none.
    pub fn network(&self) -> &NetworkNumbers {
        static NONE: std::sync::LazyLock<NetworkNumbers> = std::sync::LazyLock::new(NetworkNumbers::default);
        self.network.as_ref().unwrap_or(&NONE)
    }

    /// The memory numbers; all unknown where there are none.
    pub fn memory(&self) -> &MemoryNumbers {
        static NONE: std::sync::LazyLock<MemoryNumbers> = std::sync::LazyLock::new(MemoryNumbers::default);
        self.memory.as_ref().unwrap_or(&NONE)
    }
}

/// How long a workload was kept off the CPU, as a person reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contended {
    /// Time in which at least one thread waited, percent of the window, 0..=100.
    pub percent: f64,
    /// How many waited at a time, on average; `None` where the kernel cannot tell.
    pub threads: Option<f64>,
}

/// From the evidence: time in which at least one thread waited (`None`: the kernel cannot tell), the neighbours' part of
/// the wait of all threads together, and the window, all in seconds. `None`: neither is known.
fn contended(waited: Option<f64>, together: Option<f64>, window: f64) -> Option<Contended> {
    let seconds = waited.or(together)?;
    let at_a_time = |(waited, all): (f64, f64)| all / waited.min(window);
    let threads = waited.zip(together).filter(|(waited, _)| *waited > 0.0).map(at_a_time);
    (window > 0.0).then(|| Contended { percent: (seconds / window * 100.0).min(100.0), threads })
}

/// A millionth is finer than anything measured; the rest only makes objects long.
pub fn tidy(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests;
