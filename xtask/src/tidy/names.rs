//! A folder of `crates/` is called as the package in it.

use super::Finding;
use crate::workspace::{Metadata, Workspace};

/// Finds crates whose folder has another name.
pub(super) fn check(workspace: &Workspace, metadata: &Metadata) -> Vec<Finding> {
    let crates = workspace.root.join("crates");
    let mut findings = Vec::new();
    for package in metadata
        .ours()
        .filter(|package| package.manifest_path.starts_with(&crates))
    {
        let folder = package
            .manifest_path
            .parent()
            .and_then(|folder| folder.file_name());
        if folder.is_none_or(|folder| folder != package.name.as_str()) {
            findings.push(Finding {
                path: workspace.relative(&package.manifest_path).to_owned(),
                line: 1,
                what: format!("the package is called {}", package.name),
                help: format!("call its folder crates/{}", package.name),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::lines;

    fn check_folder(folder: &str, expected: &[usize]) {
        let workspace = Workspace {
            root: "/tree".into(),
            target: "/tree/target".into(),
        };
        let metadata = serde_json::json!({
            "packages": [{
                "id": "one", "name": "sundown", "version": "0.1.0", "license": null, "dependencies": [],
                "manifest_path": format!("/tree/{folder}/Cargo.toml"),
            }],
            "workspace_members": ["one"], "workspace_root": "/tree", "target_directory": "/tree/target",
        });
        let metadata = serde_json::from_value(metadata).expect("it has cargo's shape");
        assert_eq!(lines(check(&workspace, &metadata)), expected, "{folder}");
    }

    #[test]
    fn a_folder_under_crates_is_called_as_its_package() {
        check_folder("crates/sundown", &[]);
        check_folder("crates/lib", &[1]);
        check_folder("examples/lib", &[]);
    }
}
