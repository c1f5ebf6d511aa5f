//! `cargo xtask fuzz`: bytes from outside, by libFuzzer, against what reads them.
//!
//! On the stable compiler: coverage comes from LLVM's own pass, and Rust needs no sanitizer to find a panic.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Feed what parses bytes from outside with bytes, and report what panics
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which targets; all of fuzz/targets if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// For how many seconds each
    #[arg(long, value_name = "N", default_value_t = 600, env = "XTASK_SECONDS")]
    seconds: u32,
}

const TARGETS: [&str; 4] = ["proxy", "admin", "environment", "propagation"];

/// What makes a build one that libFuzzer can steer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The longest input: more than any of them reads.
const LONGEST: u32 = 10_240;

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    if Command::new("c++").arg("--version").output().is_err() {
        eprintln!("skipped: no c++ here, which builds libFuzzer: install Debian's package g++");
        return Ok(Verdict::Holds);
    }
    let names: Vec<&str> = match arguments.names.as_slice() {
        [] => TARGETS.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    for name in &names {
        ensure!(
            TARGETS.contains(name),
            "no target {name}; there are {}",
            TARGETS.join(", ")
        );
    }
    let target = workspace.target.join("fuzz");
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--locked", "--manifest-path"]);
    build.arg(workspace.root.join("fuzz/Cargo.toml"));
    // With a target named, build scripts are built without the flags.
    let host = host()?;
    build.args(["--target", &host]);
    build
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", FLAGS);
    ensure!(build.status()?.success(), "could not build fuzz/");
    let mut verdict = Verdict::Holds;
    for name in names {
        progress::line(&format!("{name}, {} s", arguments.seconds));
        let program = target.join(&host).join("release").join(name);
        let seeds = workspace.root.join("fuzz/seeds").join(name);
        if !fuzz(&program, &target, &seeds, arguments.seconds)? {
            verdict = Verdict::Broken;
        }
    }
    Ok(verdict)
}

/// What the compiler builds for, if nobody says otherwise.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("could not run rustc")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say what it builds for")
}

/// Runs one target; true when nothing was found.
fn fuzz(program: &Path, target: &Path, seeds: &Path, seconds: u32) -> anyhow::Result<bool> {
    let name = seeds.file_name().unwrap_or_default();
    let (corpus, finds) = (
        target.join("corpus").join(name),
        target.join("found").join(name),
    );
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&finds)?;
    let output = Command::new(program)
        .arg(&corpus)
        .arg(seeds)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", finds.display()))
        .arg("-print_final_stats=1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .with_context(|| format!("could not run {}", program.display()))?;
    progress::clear();
    let told = String::from_utf8_lossy(&output.stderr);
    let runs = told
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.unwrap_or("?").trim();
    let found = !output.status.success();
    let verdict = if found {
        "FOUND something"
    } else {
        "nothing found"
    };
    println!(
        "{:12} {runs:>12} inputs in {seconds} s: {verdict}",
        name.display()
    );
    if found {
        eprintln!("{told}");
    }
    Ok(!found)
}
