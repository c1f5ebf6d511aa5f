//! Every dependency, on every platform, may be used under a licence that we accept.
//!
//! Reads SPDX expressions (SPDX 2.3, annex D), and cargo's old `MIT/Apache-2.0` for `OR`.

use std::fs;

use anyhow::Context;

use super::Finding;
use crate::workspace::{Metadata, Package, Workspace};

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Finds packages under another licence, or under none that can be read.
pub(super) fn check(workspace: &Workspace, metadata: &Metadata) -> anyhow::Result<Vec<Finding>> {
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock"))
        .context("could not read Cargo.lock")?;
    let complain = |package: &Package| {
        let what = complaint(package.license.as_deref())?;
        Some(Finding {
            path: "Cargo.lock".into(),
            line: line_in(&lock, package),
            what: format!("{} {} {what}", package.name, package.version),
            help: "take another crate, or add the licence to xtask/src/tidy/licences.rs after reading it".to_owned(),
        })
    };
    Ok(metadata.theirs().filter_map(complain).collect())
}

fn complaint(licence: Option<&str>) -> Option<String> {
    let Some(licence) = licence else {
        return Some("names no licence".to_owned());
    };
    match is_allowed(licence) {
        Some(true) => None,
        Some(false) => Some(format!("is under {licence}, which is not allowed")),
        None => Some(format!("has a licence that cannot be read: {licence}")),
    }
}

/// Evaluates an expression; `None` when it is none.
fn is_allowed(expression: &str) -> Option<bool> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = any(&mut rest)?;
    rest.is_empty().then_some(allowed)
}

/// Reads terms joined by `OR`, which binds weaker than `AND`.
fn any(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all(rest)?;
    while take(rest, "OR") {
        allowed |= all(rest)?;
    }
    Some(allowed)
}

/// Reads terms joined by `AND`.
fn all(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = term(rest)?;
    while take(rest, "AND") {
        allowed &= term(rest)?;
    }
    Some(allowed)
}

/// Reads a licence, with its exception if it has one, or an expression in parentheses.
fn term(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let allowed = any(rest)?;
        return take(rest, ")").then_some(allowed);
    }
    let mut licence = name(rest)?.to_owned();
    if take(rest, "WITH") {
        licence = format!("{licence} WITH {}", name(rest)?);
    }
    Some(ALLOWED.contains(&licence.as_str()))
}

fn name<'a>(rest: &mut &[&'a str]) -> Option<&'a str> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    (!matches!(*first, "AND" | "OR" | "WITH" | "(" | ")")).then_some(first)
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

/// Finds the package's line in Cargo.lock, 1 when it is not there.
fn line_in(lock: &str, package: &Package) -> usize {
    let name = format!("name = \"{}\"", package.name);
    let version = format!("version = \"{}\"", package.version);
    let lines: Vec<&str> = lock.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == name && pair[1] == version)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: Option<bool>) {
        assert_eq!(is_allowed(expression), expected, "{expression:?}");
    }

    #[test]
    fn expressions_are_evaluated_with_and_before_or() {
        check("MIT", Some(true));
        check("GPL-3.0-only", Some(false));
        check("MIT OR GPL-3.0-only", Some(true));
        check("MIT AND GPL-3.0-only", Some(false));
        check("MIT OR GPL-3.0-only AND GPL-3.0-only", Some(true));
        check("(MIT OR GPL-3.0-only) AND GPL-3.0-only", Some(false));
        check("(MIT OR Apache-2.0) AND Unicode-3.0", Some(true));
        check("((MIT))", Some(true));
        check("MIT/Apache-2.0", Some(true));
        check("Apache-2.0 / MIT", Some(true));
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        check("Apache-2.0 WITH LLVM-exception", Some(true));
        check(
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            Some(true),
        );
        check("MIT WITH LLVM-exception", Some(false));
    }

    #[test]
    fn what_is_no_expression_is_not_allowed_by_accident() {
        check("", None);
        check("MIT OR", None);
        check("(MIT", None);
        check("MIT)", None);
        check("MIT Apache-2.0", None);
        check("AND MIT", None);
        check("Apache-2.0 WITH", None);
    }

    #[test]
    fn a_complaint_says_what_is_wrong() {
        assert_eq!(complaint(Some("MIT")), None);
        assert_eq!(complaint(None).as_deref(), Some("names no licence"));
        assert_eq!(
            complaint(Some("SSPL-1.0")).as_deref(),
            Some("is under SSPL-1.0, which is not allowed")
        );
        assert_eq!(
            complaint(Some("MIT OR")).as_deref(),
            Some("has a licence that cannot be read: MIT OR")
        );
    }
}
