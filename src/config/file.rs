//! The file's shape, and every key of it but those of the signals: each is one row, from which its place in the
//! configuration, its default, its check, the documented defaults and the schema are made.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Error;

use super::Wrong;
use super::page::Entry;
pub use super::signals::Signals;
use super::values::{Directories, Form, Length, Of, OneOf, Switch, Unset, Values, Whole, Words};
use crate::attribution::watch::valid_node_name;
use crate::kernel::cpu::DEFAULT_CGROUPS;
use crate::sinks::prometheus;
use crate::sinks::terminal::Output;

/// A section: `key: what may stand there = its default`, and above it the help that [`super::default_yaml`] prints.
/// `$Text` is the section as the file has it, every value with its line.
macro_rules! section {
    ($(#[doc = $about:literal])* $Name:ident, $Text:ident {
        $($(#[doc = $help:literal])* $key:ident: $Values:ty = $default:expr;)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name { $($(#[doc = $help])* pub $key: <$Values as Values>::Value),* }

        impl Default for $Name {
            fn default() -> Self {
                $Name { $($key: $default),* }
            }
        }

        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $Text { $(pub $key: Option<<$Values as Values>::Written>),* }

        impl $Text {
            /// Checks every value; what is not set has its default.
            pub fn read(&self) -> Result<$Name, Wrong> {
                let mut section = $Name::default();
                $(if let Some(written) = &self.$key {
                    section.$key = <$Values>::read(stringify!($key), written)?;
                })*
                Ok(section)
            }
        }

        impl $Name {
            /// The keys as they stand.
            pub(super) fn entries(&self) -> Vec<Entry> {
                vec![$(Entry::value(
                    stringify!($key),
                    &[$($help),*],
                    <$Values>::write(&self.$key),
                    <$Values>::schema(),
                )),*]
            }
        }
    };
}

section! {
/// How the node agent reads.
Agent, AgentText {
    /// How often the kernel is read. 100ms to 1m.
    interval: Length<100, 60_000> = Duration::from_secs(1);
    /// Cgroups (containers, pods, services) watched at once; further ones are counted, not watched. 64 to 65536.
    /// Each takes 320 bytes of kernel memory for every CPU: of up to 4096, on machines with more than 6 CPUs, only
    /// as many have the CPU probe's counters as fit in 16 MiB, 1024 at least.
    max_cgroups: Whole<64, 65536> = DEFAULT_CGROUPS;
    /// The node's name as Kubernetes has it. null: $NODE_NAME, else the host name.
    node: Unset<Of<NodeName>> = None;
    /// Ask the API server for names, owners and limits: on, off, or auto (where there is one).
    kubernetes: OneOf<Kubernetes> = Kubernetes::Auto;
    /// How long a whisper about a pod waits for the pod's name before it goes out without. 0s to 1m.
    name_wait: Length<0, 60_000> = Duration::from_secs(5);
    /// State directories of container runtimes, where a container's name is read the moment it exists: those
    /// searched beside the defaults, such as /srv/containerd.
    runtime_roots: Directories = Vec::new();
}}
section! {
/// What of the sinks is set in the file; OTLP is configured by `OTEL_EXPORTER_OTLP_*` and flags.
Sinks, SinksText {
    /// What stdout gets: text, json or none. null: text, or none when an OTLP endpoint is set.
    terminal: Unset<OneOf<Output>> = None;
    /// Address to serve Prometheus /metrics on, such as 127.0.0.1:9464; :9464 is every address. null: not served.
    prometheus: Unset<Of<Address>> = None;
}}
section! {
/// Whether and how births are certified.
Births, BirthsText {
    /// Certify the start of every pod: what was done for it, by whom, and what it cost. Costs nothing while none starts.
    enabled: Switch = true;
    /// How long a pod that is Ready may take to listen on a socket before it counts as one that does not. 0s to 1m.
    settle: Length<0, 60_000> = Duration::from_secs(2);
    /// A birth that takes longer ends unfinished. 10s to 1h.
    wait: Length<10_000, 3_600_000> = Duration::from_secs(300);
}}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub agent: Option<AgentText>,
    pub signals: Option<Signals>,
    pub sinks: Option<SinksText>,
    pub births: Option<BirthsText>,
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

impl Words for Kubernetes {
    const WORDS: &'static [(&'static str, Kubernetes)] =
        &[("auto", Kubernetes::Auto), ("on", Kubernetes::On), ("off", Kubernetes::Off)];
}

impl Words for Output {
    const WORDS: &'static [(&'static str, Output)] =
        &[("text", Output::Text), ("json", Output::Json), ("none", Output::None)];
}

/// A node's name.
pub struct NodeName;

impl Form for NodeName {
    type Value = String;
    const WANTED: &'static str = "a node's name is 1 to 253 of a-z 0-9 - .";
    const PATTERN: &'static str = "^[-.a-z0-9]{1,253}$";

    fn parse(text: &str) -> Option<String> {
        valid_node_name(text).ok()
    }
}

/// An address to listen on.
pub struct Address;

impl Form for Address {
    type Value = SocketAddr;
    const WANTED: &'static str = "an address and port is wanted, such as 127.0.0.1:9464 or :9464";
    const PATTERN: &'static str = ":[0-9]+ *$";

    fn parse(text: &str) -> Option<SocketAddr> {
        prometheus::address(text).ok()
    }
}

/// The text as a [`File`]; an empty one is an empty file.
pub fn read(text: &str) -> Result<File, Wrong> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options::<Option<File>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|e| Wrong { line: e.location().map(|l| l.line()).filter(|n| *n > 0), message: message(&e) })
}

/// What the parser found wrong, in one line without the place (which stands before it).
fn message(error: &Error) -> String {
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("key `{key}` is here a second time"),
        Error::Unexpected { expected: "mapping start", .. } => {
            "a section of `key: value` lines is wanted here".into()
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            "a list is wanted here, such as [a, b]".into()
        }
        Error::Unexpected { expected: "string scalar", .. } => "a single value is wanted here".into(),
        Error::MultipleDocuments { .. } => "a second document begins here: one is wanted".into(),
        other => {
            let text = other.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("no valid YAML: {}", text.replace(char::is_control, " "))
        }
    }
}

/// An error about a key that is none of these.
pub fn unknown_key(key: &str, valid: &[&str]) -> String {
    format!("unknown key `{}`{}", key.escape_debug(), valid_are(key, valid))
}

/// The end of an error about an unknown word: the one a typing error away, if any, and all valid ones.
pub fn valid_are(word: &str, valid: &[&str]) -> String {
    /// Wrong, missing or swapped letters of a typing error.
    const TYPING_ERROR: usize = 2;
    valid
        .iter()
        .map(|v| (strsim::damerau_levenshtein(word, v), v))
        .filter(|(distance, v)| *distance <= TYPING_ERROR && *distance < v.len())
        .min()
        .map_or_else(|| "; ".to_string(), |(_, v)| format!(", did you mean `{v}`? "))
        + "valid: "
        + &valid.join(", ")
}
