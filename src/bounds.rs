//! What may be said of things whose names others choose, in one place for who says it and who takes it: how long a name,
//! a list or a text may be, and how what is longer is cut. The agent keeps to these before it sends, the reconciler
//! checks them when it takes.

use std::borrow::Cow;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::plain::made_plain;

/// A name for people, of a neighbour (`namespace/pod/container` has at most 381) or a cgroup's path; also the value of a
/// label, of which some stores of metrics take 1,023 bytes and drop all that comes with a longer one.
pub const NAME: usize = 512;
/// Neighbours of one whisper.
pub const NEIGHBOURS: usize = 8;
/// Points of one whisper's history: two minutes, five a second.
pub const HISTORY: usize = 600;
/// A DNS label: a namespace, a container.
pub const DNS_LABEL: usize = 63;
/// A DNS subdomain: a pod, a node.
pub const DNS_NAME: usize = 253;
/// One word of a birth: a phase, a part.
pub const WORD: usize = 64;
/// What was done in one step of a birth, and why one failed, in a word.
pub const ACTION: usize = 128;
/// A program's name.
pub const PROGRAM: usize = 256;
/// Cores, seconds, or a percentage that can exceed 100: ten minutes of a million threads that wait come near it.
pub const AMOUNT: f64 = 1e9;
/// Events or bytes.
pub const COUNT: i64 = 1 << 50;
/// A sentence of a birth's or a report's: details of a step, a failure's message.
pub const SENTENCE: usize = 512;

/// Where something was left out.
const MARK: char = '…';

/// A name of at most `max` bytes and in plain characters. Of a longer one the beginning and the end are kept and what
/// is left out between is marked, with 16 digits of a hash of the whole, so that two names stay two.
pub fn name(text: &str, max: usize) -> Cow<'_, str> {
    let plain = made_plain(text);
    if plain.len() <= max {
        return plain;
    }
    let mut middle = String::from(MARK);
    for byte in &Sha256::digest(text.as_bytes())[..8] {
        // Writing to a String cannot fail.
        let _ = write!(middle, "{byte:02x}");
    }
    middle.push(MARK);
    let room = max.saturating_sub(middle.len());
    let mut tail = plain.len() - room / 3;
    while !plain.is_char_boundary(tail) {
        tail += 1;
    }
    Cow::Owned(format!("{}{middle}{}", head(&plain, room / 3 * 2), &plain[tail..]))
}

/// A text of at most `max` bytes and in plain characters; a longer one ends with a mark.
pub fn sentence(text: &str, max: usize) -> Cow<'_, str> {
    let plain = made_plain(text);
    if plain.len() <= max {
        return plain;
    }
    Cow::Owned(format!("{}{MARK}", head(&plain, max.saturating_sub(MARK.len_utf8()))))
}

/// At most so many bytes of the beginning.
fn head(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plain::is_hidden;

    #[test]
    fn what_is_too_long_is_cut_with_a_mark_and_two_stay_two() {
        assert_eq!(name("/system.slice/a.service", NAME), "/system.slice/a.service");
        let long = |end: char| format!("/{}/{}/{}{end}", "1".repeat(250), "2".repeat(250), "3".repeat(250));
        let (one, two) = (long('a'), long('b'));
        let (one, two) = (name(&one, NAME), name(&two, NAME));
        assert!(one.len() <= NAME && one.len() > NAME - 8 && one.contains(MARK), "{one}");
        assert!(one.starts_with("/11") && one.ends_with("33a"), "{one}");
        // What differs only where it is cut.
        let between = |c: char| format!("/{}{c}{}", "1".repeat(450), "2".repeat(450));
        assert_ne!(name(&between('a'), NAME), name(&between('b'), NAME));
        assert_ne!(one, two);
        assert_eq!(sentence("a\tb\u{1b}[31m\u{202e}c", 20), "a b\u{fffd}[31m\u{fffd}c");
        assert_eq!(sentence(&"x".repeat(20), 10), "xxxxxxx…");
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_keeps_to_its_bounds(text in ".{0,80}", max in 30usize..60) {
            for cut in [name(&text, max), sentence(&text, max)] {
                prop_assert!(cut.len() <= max && !cut.chars().any(is_hidden), "{cut:?}");
            }
        }
    }
}
