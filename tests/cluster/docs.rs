//! The commands in the documentation work, and print what it says they print.
//!
//! A code block that starts with ` ```console test ` (` ```console test cluster ` if it needs a Kubernetes node) is run
//! by one bash, at the top of the repository, with `kernel-gossip` on the PATH; what it left in the background is ended
//! after it. Lines after `$ ` are commands (a `\` at the end continues one); each must succeed. The others have to be
//! among the lines printed, in that order: any number stands for any other, blanks for any blanks, `…` for anything.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bed::{self, repository};
use crate::cluster::bed::Hold;

/// For one block. The longest one builds the release.
const LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(Debug, PartialEq)]
struct Block {
    /// The line it starts on.
    line: usize,
    needs_cluster: bool,
    commands: String,
    expected: Vec<String>,
}

#[test]
#[ignore = "builds the release and needs root: scripts/test docs"]
fn commands_work() {
    run_all(false);
}

#[test]
#[ignore = "needs the cluster: scripts/test docs"]
fn commands_for_the_cluster_work() {
    let _alone = Hold::alone();
    run_all(true);
}

fn run_all(on_the_cluster: bool) {
    let mut failures = Vec::new();
    for file in documents() {
        for block in blocks(&fs::read_to_string(&file).expect("UTF-8")) {
            if block.needs_cluster == on_the_cluster {
                println!("{}:{}", file.display(), block.line);
                let failed = run(&block).err();
                failures.extend(failed.map(|why| format!("{}:{}: {why}", file.display(), block.line)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn some_commands_are_tested() {
    let tested =
        documents().iter().flat_map(|file| blocks(&fs::read_to_string(file).expect("UTF-8"))).count();
    assert!(tested > 0);
}

/// What the program lists when asked with these arguments.
fn listed(arguments: &[&str]) -> String {
    bed::process::output(bed::kernel_gossip().args(arguments))
}

/// The words of a text that begin like this, each once, in order.
fn words<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let of_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts = text.match_indices(prefix).map(|(at, _)| at);
    let apart = starts.filter(|at| !text[..*at].ends_with(of_word));
    let ends = |at: usize| text[at..].find(|c| !of_word(c)).map_or(text.len(), |length| at + length);
    let mut words: Vec<_> = apart.map(|at| &text[at..ends(at)]).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The pages name every flag and variable the help has, and none that it has not; every key they name is one.
#[test]
fn the_agents_flags_are_in_the_documentation() {
    let help = listed(&["agent", "--help"]);
    let page = |name: &str| fs::read_to_string(repository().join("docs").join(name)).expect("a page");
    let rows = |page: &str| page.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n");
    let (settings, otlp) = (rows(&page("configuration.md")), rows(&page("exporting.md")));
    let of_otlp = |flag: &&str| flag.starts_with("--otlp");
    let (of_help, others): (Vec<_>, Vec<_>) =
        words(&help, "--").into_iter().filter(|flag| *flag != "--help").partition(of_otlp);
    assert_eq!(words(&settings, "--"), others);
    assert_eq!(words(&otlp, "--"), of_help);
    for variable in words(&help, "OTEL_") {
        // The table leaves out what they have in common.
        let short = variable.trim_start_matches("OTEL_EXPORTER_OTLP_").trim_start_matches("METRICS_");
        let short = short.trim_start_matches("LOGS_").trim_start_matches("TRACES_");
        assert!(otlp.contains(&format!("`{short}`")) || otlp.contains(short), "{variable}");
    }
    assert!(settings.contains("`NODE_NAME`") && help.contains("$NODE_NAME"));
    let file = listed(&["config"]);
    for key in ["agent.", "sinks."].iter().flat_map(|section| words(&settings, section)) {
        let (section, key) = key.split_once('.').expect("a section");
        let body = file.split(&format!("\n{section}:\n")).nth(1).expect("the section");
        let body = body.split("\n\n").next().expect("its keys");
        assert!(body.contains(&format!("\n  {key}: ")) || body.starts_with(&format!("  {key}: ")), "{key}");
    }
}

/// The documentation: every page at the top, in docs/ and of the test bed.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "tests/testbed"] {
        let Ok(entries) = fs::read_dir(repository().join(folder)) else { continue };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found.sort();
    found
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((start, line)) = lines.next() {
        let Some(words) = start.strip_prefix("```console test") else { continue };
        let mut block =
            Block { line, needs_cluster: words == " cluster", commands: String::new(), expected: Vec::new() };
        assert!(block.needs_cluster || words.is_empty(), "line {line}: {start}");
        let mut continued = false;
        for (text, _) in lines.by_ref().take_while(|(text, _)| *text != "```") {
            match text.strip_prefix("$ ").or(continued.then_some(text)) {
                Some(command) => {
                    block.commands.push_str(command);
                    block.commands.push('\n');
                    continued = command.ends_with('\\');
                }
                None if text.trim().is_empty() => {}
                None => block.expected.push(text.to_owned()),
            }
        }
        found.push(block);
    }
    found
}

fn run(block: &Block) -> Result<(), String> {
    let program = Path::new(env!("CARGO_BIN_EXE_kernel-gossip")).parent().expect("its folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let output = tempfile::NamedTempFile::new().expect("a file");
    let writer = || File::options().append(true).open(output.path()).expect("the file");
    let mut bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block.commands])
        .current_dir(repository())
        .env("PATH", path)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer())
        .stderr(writer())
        .spawn()
        .expect("bash");
    let end = Instant::now() + LIMIT;
    let status = loop {
        match bash.try_wait().expect("wait for bash") {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
            status => break status,
        }
    };
    end_group(bash.id() as i32);
    // Reaped in any case; killed by now if it was still there.
    bash.wait().expect("wait for bash");
    let said = fs::read_to_string(output.path()).expect("UTF-8");
    match status {
        None => Err(format!("no end within {LIMIT:?}\n{said}")),
        Some(status) if !status.success() => Err(format!("{status}\n{said}")),
        Some(_) => missing(&block.expected, &said)
            .map_or(Ok(()), |line| Err(format!("it did not print\n{line}\nbut\n{said}"))),
    }
}

/// Asks a process group to end, and kills what has not after two seconds.
fn end_group(group: i32) {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // SAFETY: kill() takes no pointer; the group's id is that of a child of ours, so not one of 0 and 1.
        let gone = |signal| unsafe { libc::kill(-group, signal) } != 0;
        let asked = Instant::now();
        let mut ended = gone(signal);
        while !ended && asked.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
            ended = gone(0);
        }
        if ended {
            return;
        }
    }
    eprintln!("group {group} does not end: {}", io::Error::last_os_error());
}

/// The first of the expected lines that is not printed after the ones before it.
fn missing<'a>(expected: &'a [String], said: &str) -> Option<&'a String> {
    let mut said = said.lines();
    expected.iter().find(|line| !said.by_ref().any(|found| stands_for(line, found)))
}

/// Whether a line of the documentation stands for one that was printed.
fn stands_for(line: &str, found: &str) -> bool {
    let (line, found) = (outline(line), outline(found));
    let parts: Vec<_> = line.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return line == found };
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The line with every number as 0 and every run of blanks as one.
fn outline(line: &str) -> String {
    let mut outline = String::new();
    let mut rest = line.trim();
    while let Some(next) = rest.chars().next() {
        let is_number = |c: char| c.is_ascii_digit();
        let is_fraction = |c: char| is_number(c) || c == '.';
        let length = if is_number(next) {
            outline.push('0');
            // A full stop after a number is not of it.
            rest.find(|c| !is_fraction(c)).map_or(rest, |end| &rest[..end]).trim_end_matches('.').len()
        } else if next.is_whitespace() {
            outline.push(' ');
            rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
        } else {
            outline.push(next);
            next.len_utf8()
        };
        rest = &rest[length..];
    }
    outline
}

#[test]
fn blocks_are_found() {
    let text = "a\n```console\n$ no\n```\n```console test\n$ a \\\n  b\nsaid\n$ c\n```\n```console test cluster\n$ d\n```\n";
    let block = |line, needs_cluster, commands: &str, expected: &[&str]| Block {
        line,
        needs_cluster,
        commands: commands.into(),
        expected: expected.iter().map(|line| line.to_string()).collect(),
    };
    assert_eq!(blocks(text), [block(5, false, "a \\\n  b\nc\n", &["said"]), block(11, true, "d\n", &[])]);
}

#[test]
fn lines_are_compared_by_outline() {
    for (line, found) in [
        ("throttled 80.1 % of 5 s.", "throttled   7 % of 5.25 s."),
        ("pod … is fine", "pod a-b is fine"),
        ("… is …", "this is it"),
        ("…", ""),
        ("a 0 b", "a 12 b"),
    ] {
        assert!(stands_for(line, found), "{line} / {found}");
    }
    for (line, found) in
        [("one", "one two"), ("… b", "a b c"), ("a … c", "a b"), ("ab…ba", "aba"), ("5 s", "s")]
    {
        assert!(!stands_for(line, found), "{line} / {found}");
    }
}

#[test]
fn a_block_is_run_and_judged() {
    let block = |commands: &str, expected: &[&str]| {
        let text = format!("```console test\n$ {commands}\n{}\n```\n", expected.join("\n"));
        run(&blocks(&text)[0])
    };
    assert_eq!(block("echo 1; echo two >&2; echo three", &["9", "three"]), Ok(()));
    assert!(block("echo b; echo a", &["a", "b"]).unwrap_err().contains("did not print\nb\n"));
    assert!(block("echo before; false; echo after", &["after"]).unwrap_err().contains("exit status: 1"));
    // What goes on in the background does not keep it, and is ended.
    let dir = tempfile::tempdir().unwrap();
    let (ready, marker) = (dir.path().join("ready"), dir.path().join("ended"));
    let background = format!(
        "(trap 'echo ended >{}; exit' TERM; touch {ready}; while :; do sleep 0.01; done) & \
         until [ -e {ready} ]; do sleep 0.01; done",
        marker.display(),
        ready = ready.display()
    );
    assert_eq!(block(&background, &[]), Ok(()));
    assert_eq!(fs::read_to_string(&marker).unwrap(), "ended\n");
}
