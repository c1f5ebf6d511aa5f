//! Which crate of ours may depend on which: the list in ARCHITECTURE.md.
//!
//! Looks at normal dependencies only: tests may use what they like.

use std::fs;

use anyhow::Context;

use super::Finding;
use crate::workspace::{Metadata, Workspace};

/// A crate of ours, and those of ours it may depend on.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("sundown", &[]),
    ("sundown-config", &[]),
    ("sundown-telemetry", &[]),
    ("sundown-verify", &[]),
    ("sundown-testkit", &[]),
    ("sundown-proxy", &["sundown"]),
    (
        "sundown-guard",
        &["sundown", "sundown-proxy", "sundown-telemetry"],
    ),
    (
        "sundown-cli",
        &[
            "sundown",
            "sundown-config",
            "sundown-telemetry",
            "sundown-verify",
            "sundown-proxy",
            "sundown-guard",
            "shop",
        ],
    ),
    ("shop", &["sundown", "sundown-config", "sundown-telemetry"]),
    ("peers", &["sundown", "sundown-telemetry"]),
    (
        "xtask",
        &[
            "sundown-telemetry",
            "sundown-verify",
            "sundown-testkit",
            "shop",
        ],
    ),
];

/// Finds dependencies among our crates that are not on the list.
pub(super) fn check(workspace: &Workspace, metadata: &Metadata) -> anyhow::Result<Vec<Finding>> {
    let names: Vec<&str> = metadata
        .ours()
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for package in metadata.ours() {
        let manifest = &package.manifest_path;
        let text = fs::read_to_string(manifest)
            .with_context(|| format!("could not read {}", manifest.display()))?;
        let normal = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.is_none());
        let edges = normal
            .map(|dependency| dependency.name.as_str())
            .filter(|name| names.contains(name));
        findings.extend(
            edges
                .filter_map(|to| forbidden(&package.name, to).map(|help| (to, help)))
                .map(|(to, help)| {
                    let path = workspace.relative(manifest).to_owned();
                    Finding {
                        path,
                        line: line_in(&text, to),
                        what: format!("{} may not depend on {to}", package.name),
                        help,
                    }
                }),
        );
    }
    Ok(findings)
}

/// Returns what to do about an edge that is not allowed.
fn forbidden(from: &str, to: &str) -> Option<String> {
    match MAY_DEPEND_ON.iter().find(|(name, _)| *name == from) {
        None => Some(format!(
            "say in xtask/src/tidy/edges.rs and ARCHITECTURE.md what {from} may depend on"
        )),
        Some((_, allowed)) if allowed.contains(&to) => None,
        Some(_) if to == "sundown-testkit" => Some("make it a dev-dependency".to_owned()),
        Some((_, [])) => Some(format!(
            "{from} depends on nothing of ours: move what it needs, or who needs it"
        )),
        Some((_, allowed)) => Some(format!("{from} may depend on {}", allowed.join(", "))),
    }
}

/// Finds the dependency's line in a manifest, 1 when it is not there.
fn line_in(manifest: &str, dependency: &str) -> usize {
    let names = |line: &str| {
        line.strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    manifest
        .lines()
        .position(names)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, expected: Option<&str>) {
        assert_eq!(forbidden(from, to).as_deref(), expected, "{from} -> {to}");
    }

    #[test]
    fn only_the_edges_of_the_list_are_allowed() {
        check("sundown-cli", "sundown-verify", None);
        check("sundown-guard", "sundown-proxy", None);
        check("sundown-proxy", "sundown", None);
        check("xtask", "sundown-testkit", None);
        check(
            "sundown-cli",
            "sundown-testkit",
            Some("make it a dev-dependency"),
        );
        check(
            "sundown-proxy",
            "sundown-guard",
            Some("sundown-proxy may depend on sundown"),
        );
        check(
            "sundown-verify",
            "sundown",
            Some("sundown-verify depends on nothing of ours: move what it needs, or who needs it"),
        );
        check(
            "newcomer",
            "sundown",
            Some("say in xtask/src/tidy/edges.rs and ARCHITECTURE.md what newcomer may depend on"),
        );
    }

    #[test]
    fn a_dependency_is_not_taken_for_one_with_a_longer_name() {
        assert_eq!(
            line_in(
                "[dependencies]\nsundown-verify.workspace = true\nsundown.workspace = true\n",
                "sundown"
            ),
            3
        );
        assert_eq!(line_in("[dependencies]\n", "sundown"), 1);
    }
}
