//! The file's shape: every value is taken as text with its line, to be checked in [`super::check`]
//! where the key and its valid values are known.

use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use super::Wrong;

/// A value as written, with where.
pub type Text = Spanned<String>;

macro_rules! section {
    ($name:ident { $($key:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $(pub $key: $type),* }
    };
}

/// The keys every rule has.
pub struct RuleKeys<'a> {
    pub enabled: &'a Option<Text>,
    pub window: &'a Option<Text>,
    pub warning: &'a Option<Text>,
    pub critical: &'a Option<Text>,
    pub clear: &'a Option<Text>,
    pub hold: &'a Option<Text>,
    pub repeat: &'a Option<Text>,
}

/// A section with the keys every rule has and its own. (serde cannot flatten a struct and refuse
/// unknown keys at once.)
macro_rules! rule {
    ($name:ident { $($key:ident: $type:ty),* $(,)? }) => {
        section!($name {
            enabled: Option<Text>,
            window: Option<Text>,
            warning: Option<Text>,
            critical: Option<Text>,
            clear: Option<Text>,
            hold: Option<Text>,
            repeat: Option<Text>,
            $($key: $type),*
        });

        impl $name {
            pub fn rule(&self) -> RuleKeys<'_> {
                RuleKeys {
                    enabled: &self.enabled,
                    window: &self.window,
                    warning: &self.warning,
                    critical: &self.critical,
                    clear: &self.clear,
                    hold: &self.hold,
                    repeat: &self.repeat,
                }
            }
        }
    };
}

section!(File {
    agent: Option<Agent>,
    signals: Option<Signals>,
    sinks: Option<Sinks>,
    births: Option<Births>,
});
section!(Agent {
    interval: Option<Text>,
    max_cgroups: Option<Text>,
    node: Option<Text>,
    kubernetes: Option<Text>,
    name_wait: Option<Text>,
    runtime_roots: Option<Vec<Text>>,
});
section!(Signals { cpu_throttle: Option<CpuThrottle>, cpu_contention: Option<CpuContention> });
rule!(CpuThrottle { min_throttled: Option<Text>, min_stalls: Option<Text> });
rule!(CpuContention { min_wait: Option<Text>, min_share: Option<Text> });
section!(Births { enabled: Option<Text>, settle: Option<Text>, wait: Option<Text> });
section!(Sinks { terminal: Option<Text>, prometheus: Option<Text> });

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

fn unknown_key(key: &str, valid: &[&str]) -> String {
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
