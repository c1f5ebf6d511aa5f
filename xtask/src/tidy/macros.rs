//! Macros that mean "not finished" are not committed.

use super::{Finding, Text};

/// Without the `!(`, so that this file does not find itself.
const LEFT_OVERS: [&str; 3] = ["todo", "dbg", "unimplemented"];

/// Finds calls of the macros.
pub(super) fn check(text: &Text) -> Vec<Finding> {
    let on_line = |(number, line)| {
        let found = LEFT_OVERS.iter().filter(move |name| calls(line, name));
        found.map(move |name| {
            text.finding(
                number,
                format!("{name}! is left over"),
                "finish it, or remove it",
            )
        })
    };
    text.lines().flat_map(on_line).collect()
}

fn calls(line: &str, name: &str) -> bool {
    let call = format!("{name}!(");
    let starts_a_word =
        |(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
    line.match_indices(&call).any(starts_a_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::{lines, text};

    #[test]
    fn a_left_over_is_found_and_a_longer_name_is_not() {
        let content = format!(
            "fn a() {{ {0}!() }}\nmy_{0}!();\nlet x = {1}!(y);\n{0}_list!();\n",
            "todo", "dbg"
        );
        assert_eq!(lines(check(&text("src/a.rs", &content))), [1, 3]);
    }
}
