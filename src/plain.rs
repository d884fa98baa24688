//! Text that others wrote, as a terminal, a page, an attribute or an object may have it: whoever names a program or a
//! container must not write on the screen of who reads it, nor turn around what stands beside it.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Shows text that others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(plain(c)))
    }
}

/// A name as a terminal may have it, with what does something to what is around it spelled out: whoever names a cgroup must
/// not write on the screen.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match is_hidden(c) {
            true => write!(f, "{}", c.escape_debug()),
            false => f.write_char(c),
        })
    }
}

/// `256.0 MiB`
pub fn bytes(bytes: i64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.2} GiB", b as f64 / f64::from(1 << 30)),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b => format!("{b} bytes"),
    }
}

/// The character, or what stands for one that does something to what is around it: controls, and what Unicode calls
/// formats (the direction of writing, joiners, what is not shown at all).
pub fn plain(c: char) -> char {
    match c.general_category() {
        GeneralCategory::Control if c.is_whitespace() => ' ',
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => ' ',
        GeneralCategory::Control | GeneralCategory::Format => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

/// It is none that a reader sees as it is: [`plain()`] has another in its place.
pub fn is_hidden(c: char) -> bool {
    plain(c) != c
}

/// The text with plain characters alone.
pub fn made_plain(text: &str) -> Cow<'_, str> {
    match text.chars().any(is_hidden) {
        true => Cow::Owned(Plain(text).to_string()),
        false => Cow::Borrowed(text),
    }
}

/// Plain text of at most so many bytes.
pub fn clipped(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().map(plain) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

/// The same with every text in it plain.
///
/// # Errors
/// It cannot be written as JSON and read again.
pub fn all<T: Serialize + DeserializeOwned>(of: &T) -> Result<T, serde_json::Error> {
    let mut value = serde_json::to_value(of)?;
    every(&mut value);
    serde_json::from_value(value)
}

fn every(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().any(is_hidden) => *text = Plain(text).to_string(),
        Value::Array(values) => values.iter_mut().for_each(every),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.chars().any(is_hidden)) {
                let all = std::mem::take(fields).into_iter();
                *fields = all.map(|(key, value)| (Plain(&key).to_string(), value)).collect();
            }
            fields.values_mut().for_each(every);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_to_what_is_around_it_is_not_plain() {
        let hostile = "a\u{1b}[2J\u{7}\u{9b}\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{e0041}b\nc\u{2028}d";
        assert_eq!(
            Plain(hostile).to_string(),
            "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}b c d"
        );
        for plain in ["nginx", "größe", "名前", "…, 5 ms", "🦀"] {
            assert_eq!(Plain(plain).to_string(), plain);
        }
        assert_eq!(clipped("äöü\u{7}", 5), "äö");
    }

    #[test]
    fn every_text_of_a_thing_is_made_plain() {
        let thing = serde_json::json!({"a\u{1b}": ["x\u{202e}", 1.5, null], "b": {"c": "ok"}});
        let made = all(&thing).expect("JSON");
        assert_eq!(made, serde_json::json!({"a\u{fffd}": ["x\u{fffd}", 1.5, null], "b": {"c": "ok"}}));
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_plain_characters_comes_out(text in ".*") {
            let out = Plain(&text).to_string();
            let turned = |c: char| ('\u{202a}'..='\u{202e}').contains(&c);
            let all_plain = !out.chars().any(|c| c.is_control() || turned(c));
            proptest::prop_assert!(all_plain);
            proptest::prop_assert_eq!(out.chars().count(), text.chars().count());
        }
    }
}
