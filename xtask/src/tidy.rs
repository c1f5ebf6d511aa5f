//! `cargo xtask tidy`: what the compiler and clippy cannot hold, one file a check.
//!
//! Never changes a file, and never asks the network for more than cargo needs.

mod advisories;
mod edges;
mod length;
mod licences;
mod macros;
mod names;
mod paths;
mod sleeps;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::Verdict;
use crate::workspace::{Metadata, Workspace};

/// Check the tree: crate edges, licences, lengths, left-overs, absolute paths, sleeps in tests
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// One thing to put right, printed as `path:line: what; help: …`.
#[derive(Debug, Eq, PartialEq)]
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
    help: String,
}

/// A text file of the tree, its path relative to the root.
struct Text {
    path: PathBuf,
    content: String,
}

/// Runs every check and prints what it finds.
pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    let metadata = Metadata::read()?;
    let texts = texts(&workspace.root)?;
    let mut findings = Vec::new();
    findings.extend(edges::check(workspace, &metadata)?);
    findings.extend(names::check(workspace, &metadata));
    findings.extend(licences::check(workspace, &metadata)?);
    for text in &texts {
        findings.extend(paths::check(text));
        if text.is_rust() {
            findings.extend(length::check(text));
            findings.extend(macros::check(text));
            findings.extend(sleeps::check(text));
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    let advisories = advisories::check(workspace)?;
    eprintln!(
        "tidy: {} files, {} packages, {} findings",
        texts.len(),
        metadata.packages.len(),
        findings.len()
    );
    Ok(if findings.is_empty() {
        advisories
    } else {
        Verdict::Broken
    })
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}; help: {}",
            self.path.display(),
            self.line,
            self.what,
            self.help
        )
    }
}

impl Text {
    fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Returns whether the file lies in a folder called `tests`.
    fn is_in_tests(&self) -> bool {
        self.path
            .parent()
            .is_some_and(|folder| folder.iter().any(|part| part == "tests"))
    }

    /// Lists the lines, numbered as editors do.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    fn finding(&self, line: usize, what: impl Into<String>, help: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what: what.into(),
            help: help.into(),
        }
    }
}

/// Reads every text file of the tree, without what is built, fetched or ignored.
fn texts(root: &Path) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("could not list {}", folder.display()))?
        {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            if kind.is_dir() && !is_ignored(&name.to_string_lossy()) {
                folders.push(entry.path());
            } else if kind.is_file()
                // What is not UTF-8 is not text.
                && let Ok(content) = fs::read_to_string(entry.path())
            {
                let path = entry
                    .path()
                    .strip_prefix(root)
                    .expect("the walk starts at the root")
                    .to_owned();
                texts.push(Text { path, content });
            }
        }
    }
    texts.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(texts)
}

fn is_ignored(folder: &str) -> bool {
    matches!(folder, ".git" | "node_modules" | "target") || folder.starts_with("target-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a file for the tests of a check.
    pub(super) fn text(path: &str, content: &str) -> Text {
        Text {
            path: path.into(),
            content: content.into(),
        }
    }

    /// The lines that a check found something on.
    pub(super) fn lines(findings: impl IntoIterator<Item = Finding>) -> Vec<usize> {
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_finding_says_where_what_and_what_to_do() {
        let finding = text("a/b.rs", "").finding(3, "x is wrong", "make it y");
        assert_eq!(finding.to_string(), "a/b.rs:3: x is wrong; help: make it y");
    }
}
