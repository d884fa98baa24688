//! `scripts/generate [--check]`: writes the generated files, or shows what is not as the code says.

mod generator;

use std::fs;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

/// Lines shown of one file's difference.
const SHOWN: usize = 30;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("generate: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        other => bail!("takes --check or nothing, not {}", other.join(" ")),
    };
    let mut stale = false;
    for (name, text) in generator::files()? {
        let path = generator::path(name);
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        stale = true;
        if check {
            print!("{}", difference(name, &text)?);
        } else {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote {name}");
        }
    }
    if check && stale {
        eprintln!("generate: files are not what the code says: run scripts/generate");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// From the file as it is to this text, as diff has it.
fn difference(name: &str, text: &str) -> Result<String> {
    let path = generator::path(name);
    let mut diff = Command::new("diff")
        .args(["-uN", "--label", name, "--label", "what the code says"])
        .arg(path)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run diff: install diffutils")?;
    let mut stdin = diff.stdin.take().context("diff has no stdin")?;
    let whole = std::thread::scope(|scope| {
        // Beside reading: either pipe may be full.
        scope.spawn(move || stdin.write_all(text.as_bytes()));
        diff.wait_with_output()
    })?;
    let whole = String::from_utf8_lossy(&whole.stdout).into_owned();
    let mut shown: String = whole.split_inclusive('\n').take(SHOWN).collect();
    let lines = whole.lines().count();
    if lines > SHOWN {
        shown += &format!("… and {} more lines\n", lines - SHOWN);
    }
    Ok(shown)
}
