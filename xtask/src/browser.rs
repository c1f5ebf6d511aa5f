//! `cargo xtask browser`: the project's pages in a real browser.
//!
//! Never uses anybody's profile, and fetches no browser: the machine's is found, or named as missing.

use std::env;
use std::path::PathBuf;

use crate::Verdict;
use crate::workspace::Workspace;

/// Open the project's pages in Chromium, and use them: what `sundown verify --html` writes, and what a
/// service's admin listener shows
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The variables by which the test learns of the programs, and the names these have.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "SUNDOWN_TEST_CHROMIUM",
        &["chromium", "chromium-browser", "google-chrome"],
    ),
    ("SUNDOWN_TEST_CHROMEDRIVER", &["chromedriver"]),
];

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    let mut variables = Vec::new();
    for (variable, names) in PROGRAMS {
        let Some(program) = find(names) else {
            eprintln!(
                "skipped: no {} here: install Debian's packages chromium and chromium-driver",
                names[0]
            );
            return Ok(Verdict::Holds);
        };
        variables.push((variable, program));
    }
    // One page tells of the first, and the other is the second's.
    for (package, example) in [("sundown-verify", "planted"), ("sundown", "trial")] {
        let mut build = workspace.cargo();
        build.args(["build", "--package", package, "--all-features"]);
        build.args(["--example", example]);
        if !build.status()?.success() {
            return Ok(Verdict::Broken);
        }
    }
    let mut cargo = workspace.cargo();
    cargo.args([
        "test",
        "--package",
        "sundown-cli",
        "--test",
        "browser",
        "--",
    ]);
    cargo.args(["--ignored", "--nocapture"]);
    let status = cargo.envs(variables).status()?;
    Ok(if status.success() {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

/// Finds the first of these programs on `PATH`.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_first_of_its_names() {
        let found = find(&["no-such-program", "sh"]).unwrap();
        assert!(found.ends_with("sh"), "{}", found.display());
        assert_eq!(find(&["no-such-program"]), None);
    }

    #[test]
    fn the_tests_read_the_variables() {
        let tests = include_str!("../../crates/sundown-cli/tests/browser/driver.rs");
        for (variable, _) in PROGRAMS {
            assert!(
                tests.contains(&format!("program(\"{variable}\")")),
                "{variable}"
            );
        }
    }
}
