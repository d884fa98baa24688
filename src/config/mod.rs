//! The one configuration file: see `docs/configuration.md`.

mod check;
mod file;
mod print;
mod signals;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kernel::cpu::DEFAULT_CGROUPS;
use crate::signals::Rules;
use crate::sinks::terminal::Output;

/// More than this is no configuration file, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The whole configuration, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub agent: Agent,
    pub rules: Rules,
    pub sinks: Sinks,
    pub births: Births,
}

/// Whether and how births are certified.
#[derive(Clone, Debug, PartialEq)]
pub struct Births {
    pub enabled: bool,
    pub options: crate::birth::Options,
}

impl Default for Births {
    fn default() -> Self {
        Births { enabled: true, options: crate::birth::Options::default() }
    }
}

/// How the node agent reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Between two readings of the kernel.
    pub interval: Duration,
    /// Cgroups watched at once ([`Rules::max_workloads`] is the same number).
    pub max_cgroups: u32,
    /// The node's name; `None`: from `NODE_NAME`, else the host name.
    pub node: Option<String>,
    pub kubernetes: Kubernetes,
    /// How long a whisper about a pod waits for the pod's name.
    pub name_wait: Duration,
    /// State directories of container runtimes, beside the usual ones; absolute.
    pub runtime_roots: Vec<PathBuf>,
}

impl Default for Agent {
    fn default() -> Self {
        Agent {
            interval: Duration::from_secs(1),
            max_cgroups: DEFAULT_CGROUPS,
            node: None,
            kubernetes: Kubernetes::Auto,
            name_wait: Duration::from_secs(5),
            runtime_roots: Vec::new(),
        }
    }
}

/// Whether the API server is asked for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubernetes {
    /// Where one can be found (in a pod, or through a kubeconfig).
    #[default]
    Auto,
    On,
    Off,
}

/// What of the sinks is set in the file; OTLP is configured by `OTEL_EXPORTER_OTLP_*` and flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// `None`: text, or none when an OTLP endpoint is set.
    pub terminal: Option<Output>,
    /// Where `/metrics` is served; `None`: nowhere.
    pub prometheus: Option<SocketAddr>,
}

/// Why a file was refused: one line, `file:line: what is wrong and what is right`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", .line.map(|n| format!(":{n}")).unwrap_or_default())]
pub struct ConfigError {
    pub file: String,
    /// Counted from 1; `None` where the whole file is meant.
    pub line: Option<u64>,
    pub message: String,
}

/// The defaults as a file, with the help of every key: parses to [`Config::default`]. `kernel-gossip config` prints it,
/// docs/default.yaml holds it.
pub fn default_yaml() -> String {
    print::yaml(&Config::default())
}

impl Config {
    /// Reads and checks a file. What it does not set has its default.
    ///
    /// # Errors
    /// The file cannot be read, is no YAML, or has an unknown key or a bad value.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        let refuse = |message: String| ConfigError { file: file.clone(), line: None, message };
        let cannot = |e: std::io::Error| refuse(format!("cannot be read: {e}"));
        let mut bytes = Vec::new();
        // One byte more than allowed is read, to tell; the size a device or pipe reports means nothing.
        let source = std::fs::File::open(path).map_err(cannot)?;
        source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refuse(format!("is larger than {MAX_BYTES} bytes: not a configuration file")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
            ConfigError { file: file.clone(), line: Some(line), message: "is not UTF-8 text".into() }
        })?;
        Config::parse(&file, text)
    }

    /// Checks the text of a file; `file` is the name its errors bear.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        file::read(text).and_then(check::config).map_err(|e| ConfigError {
            file: file.into(),
            line: e.line,
            message: e.message,
        })
    }
}

/// What is wrong, before it is known in which file.
#[derive(Debug)]
struct Wrong {
    line: Option<u64>,
    message: String,
}
