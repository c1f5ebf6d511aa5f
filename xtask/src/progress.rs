//! One line on a terminal that says how far a long chore has come. Says nothing elsewhere.

use std::io::{IsTerminal, Write, stderr};

/// Shows the line in place of the one before.
pub(crate) fn line(text: &str) {
    show(text);
}

/// Takes the line away.
pub(crate) fn clear() {
    show("");
}

fn show(text: &str) {
    if stderr().is_terminal() {
        // A terminal that is gone has nobody to tell.
        let _ = write!(stderr(), "\r\x1b[2K{text}");
    }
}
