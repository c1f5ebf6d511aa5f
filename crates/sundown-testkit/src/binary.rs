//! Finds a binary of this workspace next to the running test.

use std::env;
use std::path::PathBuf;

/// Returns the path of a binary in the profile's folder, such as `target/debug/NAME`.
///
/// # Panics
/// If it has not been built, with the command that builds it.
pub fn bin_path(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a running test has a path");
    // A test lies in `deps`, a doc test's binary elsewhere: look upwards.
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let found = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(&file))
        .find(|it| it.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no binary `{name}` above {}\nhelp: cargo build --workspace --bin {name}",
            test.display(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "help: cargo build --workspace --bin no-such-binary")]
    fn a_missing_binary_is_reported_with_the_command_that_builds_it() {
        bin_path("no-such-binary");
    }
}
