//! What may stand behind a key: how it is read, written, and described to an editor. One type a kind of value, without
//! values of its own, so that a row of a section names it (`interval: Length<100, 60_000>`).

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::Wrong;
use super::file::valid_are;

/// A value as written, with where.
pub type Text = Spanned<String>;

/// A kind of value.
pub trait Values {
    type Value;
    /// As the file has it.
    type Written: DeserializeOwned + std::fmt::Debug;

    /// The value behind `key`.
    ///
    /// # Errors
    /// What stands there is none, or not in its range.
    fn read(key: &str, written: &Self::Written) -> Result<Self::Value, Wrong>;
    /// As it is written in a file; `None`: `null`.
    fn write(value: &Self::Value) -> Option<String>;
    /// What an editor checks (JSON Schema). It may let through what [`Values::read`] refuses, and refuses nothing that it
    /// takes but forms that nobody writes.
    fn schema() -> Value;
}

/// A length of time: from so many to so many ms.
pub struct Length<const LEAST: u64, const MOST: u64>;

impl<const LEAST: u64, const MOST: u64> Values for Length<LEAST, MOST> {
    type Value = Duration;
    type Written = Text;

    fn read(key: &str, text: &Text) -> Result<Duration, Wrong> {
        duration(key, text, Duration::from_millis(LEAST)..=Duration::from_millis(MOST))
    }

    fn write(value: &Duration) -> Option<String> {
        Some(show(*value))
    }

    fn schema() -> Value {
        duration_schema()
    }
}

/// A whole number.
pub struct Whole<const LEAST: u32, const MOST: u32>;

impl<const LEAST: u32, const MOST: u32> Values for Whole<LEAST, MOST> {
    type Value = u32;
    type Written = Text;

    fn read(key: &str, text: &Text) -> Result<u32, Wrong> {
        number(key, text, LEAST..=MOST)
    }

    fn write(value: &u32) -> Option<String> {
        Some(value.to_string())
    }

    fn schema() -> Value {
        number_schema(LEAST, MOST)
    }
}

/// One of some words.
pub struct OneOf<T>(PhantomData<T>);

/// What has a word for each of its values.
pub trait Words: Copy + PartialEq + 'static {
    /// As the file has them.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Words> Values for OneOf<T> {
    type Value = T;
    type Written = Text;

    fn read(key: &str, text: &Text) -> Result<T, Wrong> {
        T::WORDS.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
            bad(key, text, format!("unknown{}", valid_are(&text.value, &words)))
        })
    }

    fn write(value: &T) -> Option<String> {
        T::WORDS.iter().find(|(_, meant)| meant == value).map(|(word, _)| quoted(word))
    }

    fn schema() -> Value {
        json!({"enum": T::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
    }
}

/// `true` or `false`.
pub struct Switch;

impl Words for bool {
    const WORDS: &'static [(&'static str, bool)] = &[("true", true), ("false", false)];
}

impl Values for Switch {
    type Value = bool;
    type Written = Text;

    fn read(key: &str, text: &Text) -> Result<bool, Wrong> {
        OneOf::read(key, text)
    }

    fn write(value: &bool) -> Option<String> {
        OneOf::write(value)
    }

    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

/// What has no default.
pub struct Unset<V>(PhantomData<V>);

impl<V: Values> Values for Unset<V> {
    type Value = Option<V::Value>;
    type Written = V::Written;

    fn read(key: &str, written: &V::Written) -> Result<Option<V::Value>, Wrong> {
        V::read(key, written).map(Some)
    }

    fn write(value: &Option<V::Value>) -> Option<String> {
        value.as_ref().and_then(V::write)
    }

    fn schema() -> Value {
        V::schema()
    }
}

/// A text of a form of its own.
pub trait Form {
    type Value: Display;
    /// What is wanted, for who wrote something else.
    const WANTED: &'static str;
    /// A regular expression, as JSON Schema has them.
    const PATTERN: &'static str;

    fn parse(text: &str) -> Option<Self::Value>;
}

/// A text of this form.
pub struct Of<F>(PhantomData<F>);

impl<F: Form> Values for Of<F> {
    type Value = F::Value;
    type Written = Text;

    fn read(key: &str, text: &Text) -> Result<F::Value, Wrong> {
        F::parse(&text.value).ok_or_else(|| bad(key, text, F::WANTED))
    }

    fn write(value: &F::Value) -> Option<String> {
        Some(quoted(&value.to_string()))
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": F::PATTERN})
    }
}

/// A list of absolute paths of directories.
pub struct Directories;

impl Values for Directories {
    type Value = Vec<PathBuf>;
    type Written = Vec<Text>;

    fn read(key: &str, list: &Vec<Text>) -> Result<Vec<PathBuf>, Wrong> {
        let absolute = |text: &Text| match PathBuf::from(&text.value) {
            path if path.is_absolute() && !text.value.contains('\0') => Ok(path),
            _ => Err(bad(key, text, "absolute directories are wanted, such as /run/containerd")),
        };
        list.iter().map(absolute).collect()
    }

    fn write(value: &Vec<PathBuf>) -> Option<String> {
        let items: Vec<_> = value.iter().map(|path| quoted(&path.display().to_string())).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn schema() -> Value {
        json!({"type": "array", "items": {"type": "string", "pattern": "^/"}})
    }
}

pub fn duration(key: &str, text: &Text, range: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let parsed = text.value.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.filter(|d| range.contains(d)).ok_or_else(|| {
        let (least, most) = (show(*range.start()), show(*range.end()));
        bad(
            key,
            text,
            format!("a duration with its unit is wanted, such as 500ms, 10s or 1m: {least} to {most}"),
        )
    })
}

/// Numbers with their units; the range is for [`duration`] to check.
pub fn duration_schema() -> Value {
    json!({"type": "string", "pattern": "^([Pp].*|([0-9]+(\\.[0-9]+)? ?[a-zA-Zµμ]+(, ?| )?)+)$"})
}

pub fn number<N>(key: &str, text: &Text, range: RangeInclusive<N>) -> Result<N, Wrong>
where
    N: std::str::FromStr + PartialOrd + Display,
{
    text.value.parse::<N>().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        bad(key, text, format!("a whole number from {} to {} is wanted", range.start(), range.end()))
    })
}

pub fn number_schema(least: impl Into<u64>, most: impl Into<u64>) -> Value {
    json!({"type": "integer", "minimum": least.into(), "maximum": most.into()})
}

pub fn percent(key: &str, text: &Text) -> Result<f64, Wrong> {
    let number = text.value.strip_suffix('%').unwrap_or(&text.value).trim_end();
    let parsed = number.parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n));
    parsed.ok_or_else(|| bad(key, text, "a percentage from 0 to 100 is wanted"))
}

pub fn percent_schema() -> Value {
    json!({"type": ["number", "string"], "minimum": 0, "maximum": 100, "pattern": "^[0-9]+(\\.[0-9]+)? *%$"})
}

/// `key` has this value, and what is wanted instead.
fn bad(key: &str, text: &Text, wanted: impl Display) -> Wrong {
    /// Enough of a value to know it again.
    const SHOWN: usize = 60;
    let mut value: String = text.value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.value.chars().count() > SHOWN {
        value.push('…');
    }
    Wrong { line: line(Some(text)), message: format!("`{key}: {value}`: {wanted}") }
}

pub fn line(text: Option<&Text>) -> Option<u64> {
    text.map(|t| t.referenced.line()).filter(|n| *n > 0)
}

/// As it would be written in the file.
pub fn show(d: Duration) -> String {
    SignedDuration::try_from(d).map_or_else(|_| format!("{d:?}"), |d| format!("{d:#}"))
}

/// A text as YAML, in quotes where it needs them.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    // Doubled is the only escape that single quotes know and need.
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "''")) }
}
