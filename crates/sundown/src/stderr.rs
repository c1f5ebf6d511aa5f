//! Writes what operators see to stderr, without ever waiting for whoever reads it.
//!
//! A pipe that nobody empties must not keep the control thread from enforcing grace, so a line
//! that does not fit is dropped; std's lock is bypassed because another thread may hang in it.

use crate::sys;

/// Longer texts are written in pieces: a pipe that is writable takes at least 4096 bytes (pipe(7)).
const ATOMIC: usize = 4096;

/// Writes text and a line end.
pub(crate) fn lines(text: &str) {
    write(&format!("{text}\n"));
}

/// Writes a line over the one before; for terminals. What is too long for the row is left out: in a
/// second row it could not be written over.
pub(crate) fn renew_line(text: &str) {
    const CLEAR: &str = "\r\x1b[2K";
    let columns = sys::stderr_columns().map_or(usize::MAX, usize::from);
    if text.chars().count() <= columns {
        write(&format!("{CLEAR}{text}"));
    } else {
        let fits: String = text.chars().take(columns.saturating_sub(1)).collect();
        write(&format!("{CLEAR}{fits}…"));
    }
}

fn write(text: &str) {
    for piece in text.as_bytes().chunks(ATOMIC) {
        sys::write_stderr_if_ready(piece);
    }
}
