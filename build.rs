//! Compiles every `bpf/<probe>.bpf.c` and generates its skeleton, `$OUT_DIR/<probe>.skel.rs`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use libbpf_cargo::SkeletonBuilder;

/// Before 16, clang crashes on bit-field CO-RE reads (seen with 14).
const CLANG_MIN: u32 = 16;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let headers = Path::new("bpf/vmlinux").join(&arch);
    if !headers.is_dir() {
        bail!("no {}: kernel-gossip builds for x86_64 and aarch64", headers.display());
    }
    let clang = clang()?;
    for entry in std::fs::read_dir("bpf").context("bpf/")? {
        let source = entry?.path();
        let Some(probe) = source.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".bpf.c"))
        else {
            continue;
        };
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(["-I", "bpf", "-I", &headers.display().to_string(), "-Wall", "-Werror", "-mcpu=v3"])
            .build_and_generate(out.join(format!("{probe}.skel.rs")))
            .with_context(|| format!("{}", source.display()))?;
    }
    Ok(())
}

/// The clang to use: `$CLANG`, else the first of clang, clang-19, … that is new enough.
fn clang() -> Result<String> {
    let named = env::var("CLANG").ok();
    let candidates = match &named {
        Some(name) => vec![name.clone()],
        None => std::iter::once("clang".to_string())
            .chain((CLANG_MIN..=24).rev().map(|v| format!("clang-{v}")))
            .collect(),
    };
    for name in &candidates {
        if version(name).is_some_and(|v| v >= CLANG_MIN) {
            return Ok(name.clone());
        }
    }
    bail!(
        "no clang >= {CLANG_MIN} among {}: install one (Debian: apt-get install clang-19) or set CLANG",
        candidates.join(", ")
    )
}

fn version(clang: &str) -> Option<u32> {
    let out = Command::new(clang).arg("-dumpversion").output().ok()?;
    String::from_utf8(out.stdout).ok()?.split('.').next()?.trim().parse().ok()
}
