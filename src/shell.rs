//! Commands for a person to paste into a shell: each word of one goes through [`command`].

use std::borrow::Cow;

/// The words as one line that a shell splits into exactly these again; `None` where no shell can be given one
/// of them (a NUL).
#[must_use]
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let words: Option<Vec<_>> = words.into_iter().map(word).collect();
    Some(words?.join(" "))
}

fn word(text: &str) -> Option<Cow<'_, str>> {
    // `=` means something to a shell at the begin of a word and `,` in braces alone: `--limits=cpu=1` stays as a
    // person would write it.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,".contains(&b);
    if text.starts_with("--") && text.bytes().all(plain) {
        return Some(Cow::Borrowed(text));
    }
    shlex::try_quote(text).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a shell makes of the line.
    fn read(line: &str) -> Vec<String> {
        let show = r#"show() { for word; do printf '%s\0' "$word"; done; }; show "#;
        let out = Command::new("sh").arg("-c").arg(format!("{show}{line}")).output().expect("a shell");
        assert!(out.status.success() && out.stderr.is_empty(), "{line}: {out:?}");
        let text = String::from_utf8(out.stdout).expect("UTF-8");
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_the_words_as_they_were() {
        let words = [
            "kubectl",
            "--limits=cpu=1200m,memory=64Mi",
            "",
            "deployment/web;echo PWNED #",
            "$(id) `id` $HOME ~ * ? [a] {b,c} !! \\",
            r#"{"spec":{"containers":[{"name":"a'b"}]}}"#,
            "--x=$(id)",
            "two\nlines\tand a \u{1b}[31m",
            "=x",
            "-",
        ];
        let line = command(words).expect("words");
        assert_eq!(read(&line), words);
        assert_eq!(shlex::split(&line).expect("words"), words);
        assert!(line.starts_with("kubectl --limits=cpu=1200m,memory=64Mi '' "), "{line}");
        assert_eq!(command(["a\0b"]), None);
    }
}
