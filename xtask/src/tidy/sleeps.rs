//! A test waits for an event, not for a while; one that must sleep says why on the same line.

use super::{Finding, Text};

const SLEEPS: [&str; 2] = ["thread::sleep", "time::sleep"];

/// Opens the comment that allows a sleep.
const REASON: &str = "// tidy: ";

/// Finds sleeps without a reason in files of `tests/` folders.
pub(super) fn check(text: &Text) -> Vec<Finding> {
    if !text.is_in_tests() {
        return Vec::new();
    }
    let sleeps = text.lines().filter(|(_, line)| sleeps_without_reason(line));
    let help = format!("wait for the event, or say why on the same line: `{REASON}...`");
    sleeps
        .map(|(number, _)| text.finding(number, "a test sleeps", help.clone()))
        .collect()
}

fn sleeps_without_reason(line: &str) -> bool {
    let is_comment = line.trim_start().starts_with("//");
    let reason = line
        .split_once(REASON)
        .is_some_and(|(_, reason)| !reason.trim().is_empty());
    !is_comment && !reason && SLEEPS.iter().any(|sleep| line.contains(sleep))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::{lines, text};

    const CONTENT: &str = "std::thread::sleep(a);\n\
        tokio::time::sleep(a).await;\n\
        thread::sleep(a); // tidy: the kernel offers no event for it\n\
        thread::sleep(a); // tidy: \n\
        // thread::sleep would be a guess here\n";

    fn check_path(path: &str, expected: &[usize]) {
        assert_eq!(lines(check(&text(path, CONTENT))), expected, "{path}");
    }

    #[test]
    fn a_sleep_in_a_test_needs_a_reason() {
        check_path("crates/sundown/tests/stop.rs", &[1, 2, 4]);
        check_path("tests/support/mod.rs", &[1, 2, 4]);
        check_path("crates/sundown/src/tests.rs", &[]);
    }
}
