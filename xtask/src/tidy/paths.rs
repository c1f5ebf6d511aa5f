//! No file names a path that exists on its author's machine only.

use super::{Finding, Text};

/// Without the slashes, so that this file does not find itself.
const HOMES: [&str; 2] = ["root", "work"];

/// Finds absolute paths into somebody's home or work folder.
pub(super) fn check(text: &Text) -> Vec<Finding> {
    let on_line = |(number, line)| {
        let found = HOMES.iter().filter(move |home| names_absolute(line, home));
        found.map(move |home| {
            text.finding(
                number,
                format!("an absolute path into /{home}"),
                "write it relative to the repository",
            )
        })
    };
    text.lines().flat_map(on_line).collect()
}

/// Returns whether the folder is named from the file system's root: nothing of a path stands before it.
fn names_absolute(line: &str, home: &str) -> bool {
    let folder = format!("/{home}/");
    let continues = |before: char| before.is_alphanumeric() || "_-.~}*)/".contains(before);
    line.match_indices(&folder)
        .any(|(at, _)| !line[..at].ends_with(continues))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::{lines, text};

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        let content = HOMES.map(|home| {
            format!("cd /{home}/x\n\"/{home}/x\"\na/{home}/x\n$HOME/{home}/x\n${{A}}/{home}/x\n/{home}\nhttps://a.b/{home}/\n")
        });
        assert_eq!(lines(check(&text("a.md", &content[0]))), [1, 2]);
        assert_eq!(lines(check(&text("a.md", &content[1]))), [1, 2]);
    }
}
