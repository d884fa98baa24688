//! The file's shape: every value is taken as text with its line, to be checked in [`super::check`]
//! where the key and its valid values are known.

use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use super::Wrong;
use super::print::{Page, Print};
pub use super::signals::Signals;

/// A value as written, with where.
pub type Text = Spanned<String>;

/// A section of the file: each key with what stands behind it and, as its comment, the help that [`super::default_yaml`]
/// prints above it. Keys that follow without a comment share the one before.
macro_rules! section {
    ($name:ident { $($(#[doc = $help:literal])* $key:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[doc = $help])* pub $key: Option<$type>),* }

        impl Print for $name {
            const IS_SECTION: bool = true;

            fn print(&self, page: &mut Page) {
                $(page.key(stringify!($key), [$($help),*], self.$key.as_ref());)*
            }
        }
    };
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub agent: Option<Agent>,
    pub signals: Option<Signals>,
    pub sinks: Option<Sinks>,
    pub births: Option<Births>,
}
section!(Agent {
    /// How often the kernel is read. 100ms to 1m.
    interval: Text,
    /// Cgroups (containers, pods, services) watched at once; further ones are counted, not watched. 64 to 65536.
    /// Each takes 320 bytes of kernel memory for every CPU: of up to 4096, on machines with more than 6 CPUs, only
    /// as many have the CPU probe's counters as fit in 16 MiB, 1024 at least.
    max_cgroups: Text,
    /// The node's name as Kubernetes has it. null: $NODE_NAME, else the host name.
    node: Text,
    /// Ask the API server for names, owners and limits: on, off, or auto (where there is one).
    kubernetes: Text,
    /// How long a whisper about a pod waits for the pod's name before it goes out without. 0s to 1m.
    name_wait: Text,
    /// State directories of container runtimes, where a container's name is read the moment it exists: those
    /// beside the usual ones, such as /srv/containerd.
    runtime_roots: Vec<Text>,
});
section!(Sinks {
    /// What stdout gets: text, json or none. null: text, or none when an OTLP endpoint is set.
    terminal: Text,
    /// Address to serve Prometheus /metrics on, such as 127.0.0.1:9464; :9464 is every address. null: not served.
    prometheus: Text,
});
section!(Births {
    /// Certify the start of every pod: what was done for it, by whom, and what it cost. Costs nothing while none starts.
    enabled: Text,
    /// How long a pod that is Ready may take to listen on a socket before it counts as one that does not. 0s to 1m.
    settle: Text,
    /// A birth that takes longer ends unfinished. 10s to 1h.
    wait: Text,
});

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
