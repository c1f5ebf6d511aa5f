//! A Rust file past 800 lines is two files. Its tests do not count.

use super::{Finding, Text};

const LIMIT: usize = 800;

/// Finds a file that is too long, without a closing `#[cfg(test)] mod`.
pub(super) fn check(text: &Text) -> Option<Finding> {
    if text.is_in_tests() || text.path.file_name().is_some_and(|name| name == "tests.rs") {
        return None;
    }
    let length = length(&text.content);
    (length > LIMIT).then(|| {
        text.finding(
            LIMIT + 1,
            format!("{length} lines without tests, more than {LIMIT}"),
            "split it by meaning",
        )
    })
}

/// Counts the lines before the test module that ends the file, or all when none does.
fn length(content: &str) -> usize {
    let lines: Vec<&str> = content.lines().collect();
    let Some(start) = lines
        .iter()
        .rposition(|line| line.starts_with("#[cfg(") && line.contains("test"))
    else {
        return lines.len();
    };
    let mut rest = lines[start + 1..]
        .iter()
        .skip_while(|line| line.starts_with("#["));
    let opens = rest
        .next()
        .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
    let closes = rest.find(|line| line.starts_with('}')).is_some()
        && rest.all(|line| line.trim().is_empty());
    if opens && closes { start } else { lines.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_length(content: &str, expected: usize) {
        assert_eq!(length(content), expected, "{content}");
    }

    #[test]
    fn only_a_test_module_at_the_end_is_not_counted() {
        check_length("a\nb\n", 2);
        check_length("a\n#[cfg(test)]\nmod tests {\n    b\n}\n", 1);
        check_length(
            "a\n#[cfg(all(test, not(loom)))]\n#[allow(x)]\nmod tests {\n    b\n}\n\n",
            1,
        );
        check_length("a\n#[cfg(test)]\nmod tests {\n}\nb\n", 5);
        check_length("a\n#[cfg(test)]\nmod tests;\nb\n", 4);
        check_length("a\n#[cfg(test)]\nuse b;\n", 3);
    }

    #[test]
    fn the_limit_is_for_code_not_for_tests() {
        let long = "x\n".repeat(LIMIT + 1);
        let found =
            |path| check(&crate::tidy::tests::text(path, &long)).map(|finding| finding.line);
        assert_eq!(found("src/lib.rs"), Some(LIMIT + 1));
        assert_eq!(found("tests/stop.rs"), None);
        assert_eq!(found("src/serve/tests.rs"), None);
        assert_eq!(
            check(&crate::tidy::tests::text(
                "src/lib.rs",
                &"x\n".repeat(LIMIT)
            )),
            None
        );
    }
}
