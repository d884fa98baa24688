//! A cgroup's path as text. The kernel takes any bytes for a name but NUL, newline and `/`; everything after the kernel
//! knows text that can be shown. Bytes that are no UTF-8, and those of characters that are not to be seen (a terminal
//! would obey them), are written `\xNN`, so that no two paths are one text and each leads back to its directory. A
//! backslash is itself (systemd writes `\x2d` for a dash), unless what follows would read as such a byte.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::plain::is_hidden;

/// The text of a path or a name.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c == '\\' || is_hidden(c)) => return Cow::Borrowed(text),
        _ => {}
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' && escaped(rest).is_some() {
                out.push_str("\\x5c");
            } else if is_hidden(c) {
                rest[..c.len_utf8()].iter().for_each(|byte| out.push_str(&escape(*byte)));
            } else {
                out.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            out.push_str(&escape(*byte));
            rest = &rest[1..];
        }
    }
    Cow::Owned(out)
}

/// The bytes of a path that [`text`] made.
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    let mut rest = text.as_bytes();
    if !rest.contains(&b'\\') {
        return Cow::Borrowed(rest);
    }
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        match escaped(rest) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[4..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}

/// The directory (or file) at a path of the tree mounted at `root`.
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(OsStr::from_bytes(&bytes(path.trim_start_matches('/'))))
}

fn escape(byte: u8) -> String {
    format!("\\x{byte:02x}")
}

/// The byte that stands at the beginning as `\xNN`: one that [`text`] writes so.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'\\', b'x', high, low, ..] = *text else { return None };
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let byte = digit(high)? << 4 | digit(low)?;
    (!byte.is_ascii() || byte.is_ascii_control() || byte == b'\\').then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_text_stays_and_what_is_not_can_be_read() {
        for same in ["/system.slice/a.service", "/ä/ü", "/machine-qemu\\x2d1\\x2dvm1.scope", "/a\\", "/\\x8"]
        {
            assert_eq!(text(same.as_bytes()), same);
        }
        assert_eq!(text(b"/caf\xe9"), "/caf\\xe9");
        assert_eq!(text(b"/caf\\xe9"), "/caf\\x5cxe9", "another cgroup");
        assert_eq!(text(b"/\xe9\xe8"), "/\\xe9\\xe8");
        assert_eq!(text("/a\t\u{1b}[31m\u{202e}b".as_bytes()), "/a\\x09\\x1b[31m\\xe2\\x80\\xaeb");
    }

    proptest! {
        #[test]
        fn no_two_are_one_and_each_leads_back(
            name in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c'), Just(b'e'), Just(0x1b), Just(b'1')], 0..40),
        ) {
            let text = text(&name);
            prop_assert!(!text.chars().any(is_hidden));
            prop_assert_eq!(&*bytes(&text), &name[..], "{}", text);
        }
    }
}
