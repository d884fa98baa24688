//! How `scripts/test` counts what a test program says, and what of it is repeated: a run that failed must not pass for
//! one that did not. The programs are shell scripts that print what libtest prints and end as they are told to.

use std::process::Command;

use crate::bed::repository;

/// The end of a test program, with these failures.
fn failed(names: &[&str], status: u8) -> String {
    let names: String = names.iter().map(|n| format!("    {n}\n")).collect();
    let counts = format!("{} failed; 0 ignored; 0 measured; 0 filtered out", names.lines().count());
    format!("failures:\n\nfailures:\n{names}\ntest result: FAILED. 2 passed; {counts}\nexit {status}")
}

/// The closing line of a run of this program, the lines about repetitions before it, and whether the run succeeded.
/// Asked for one test alone, the program passes at this try.
fn run(says: &str, passes_at: usize) -> (String, Vec<String>, bool) {
    let dir = tempfile::tempdir().unwrap();
    let (text, status) = says.rsplit_once("\nexit ").unwrap();
    std::fs::write(dir.path().join("says"), format!("{text}\n")).unwrap();
    let program = format!(
        "case $* in
        *--exact*) echo >>tries; [ $(wc -l <tries) -ge {} ] ;;
        *) cat says; if [ {status} = 11 ]; then kill -SEGV $$; fi; exit {status} ;;
        esac",
        passes_at - 1
    );
    std::fs::write(dir.path().join("program"), program).unwrap();
    let scripts = repository().join("scripts");
    let script = format!(
        "set -euo pipefail; . {0}/lib.sh; . {0}/suite.sh; suite it -- bash program; summary",
        scripts.display()
    );
    let out =
        Command::new("bash").args(["-c", &script]).current_dir(dir.path()).env_remove("KG_REPORT").output();
    let out = out.unwrap();
    let lines: Vec<String> = String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect();
    let repeated = lines.iter().filter(|l| l.contains("  repeated  ")).cloned().collect();
    (lines.last().unwrap().clone(), repeated, out.status.success())
}

#[test]
fn a_run_is_what_its_program_says_and_how_it_ends() {
    let passed = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
    for (what, says, last, succeeds) in [
        ("passed", format!("{passed}\nexit 0"), "3 passed, 0 failed, 1 skipped", true),
        ("a test failed", failed(&["a::b"], 101), "2 passed, 1 failed", false),
        // What a test prints may look like what the program says.
        (
            "noise",
            format!("7 passed, 0 failed\n    x::measured::y\n{}", failed(&["a::b"], 101)),
            "2 passed, 1 failed",
            false,
        ),
        (
            "noise of one that passed",
            format!("    x::measured::y\n{passed}\nexit 0"),
            "3 passed, 0 failed, 1 skipped",
            true,
        ),
        ("ended late", format!("    metadata:\n{passed}\nexit 124"), "3 passed, 1 failed, 1 skipped", false),
        ("a guest that died", failed(&["a::measured::b"], 125), "2 passed, 2 failed", false),
        ("crashed", "running 3 tests\nexit 11".into(), "0 passed, 1 failed", false),
        ("panicked outside its tests", "running 3 tests\nexit 101".into(), "0 passed, 1 failed", false),
        ("said nothing", "\nexit 0".into(), "0 passed, 1 failed", false),
        ("has none", passed.replace('3', "0") + "\nexit 0", "0 passed, 1 failed, 1 skipped", false),
    ] {
        let (closing, _, success) = run(&says, 2);
        assert_eq!((closing.as_str(), success), (last, succeeds), "{what}");
    }
}

#[test]
fn a_measurement_is_repeated_twice_at_most_and_nothing_else_is() {
    let measured = failed(&["a::measured::b"], 101);
    for (passes_at, last, told) in [
        (2, "3 passed, 0 failed", "  repeated  it: a::measured::b passed at try 2 of 3"),
        (3, "3 passed, 0 failed", "  repeated  it: a::measured::b passed at try 3 of 3"),
        (4, "2 passed, 1 failed", "  repeated  it: a::measured::b failed 3 times"),
    ] {
        let (closing, repeated, success) = run(&measured, passes_at);
        assert_eq!((closing.as_str(), success), (last, passes_at < 4));
        assert_eq!(repeated, [told]);
    }
    let (closing, repeated, success) = run(&failed(&["a::measured::b", "a::logic"], 101), 2);
    assert_eq!((closing.as_str(), repeated.len(), success), ("3 passed, 1 failed", 1, false));
}
