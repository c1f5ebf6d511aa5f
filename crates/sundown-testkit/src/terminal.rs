//! A terminal for a child to write on, and what a person would see there.
//!
//! Never echoes and never sends a signal: nobody types, and it is nobody's controlling terminal.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

/// How long the terminal waits for something to be written before it gives up.
const LIMIT: Duration = Duration::from_secs(60);

/// A pseudoterminal (pty(7)) whose rows are so many columns wide.
#[derive(Debug)]
pub struct Terminal {
    ours: File,
    theirs: Option<OwnedFd>,
    columns: u16,
    written: Vec<u8>,
}

impl Terminal {
    /// Opens one.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn open(columns: u16) -> io::Result<Self> {
        let (mut ours, mut theirs) = (-1, -1);
        let mut size = libc::winsize {
            ws_row: 50,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the pointers are to local values that outlive the call, or null where that means
        // "none" (openpty(3)).
        let opened = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &raw mut size,
            )
        };
        if opened != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors are new, and nobody else knows of them.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        close_on_exec(&ours)?;
        close_on_exec(&theirs)?;
        Ok(Self {
            ours,
            theirs: Some(theirs),
            columns,
            written: Vec::new(),
        })
    }

    /// Gives the child's end away, once: when the child is gone, so is the last who could write.
    ///
    /// # Panics
    /// When it was given away before.
    pub fn stdio(&mut self) -> Stdio {
        let theirs = self.theirs.take();
        theirs.expect("a terminal is given to one child").into()
    }

    /// Waits until this was written so often, and returns all that was written.
    ///
    /// # Panics
    /// When the child is gone, or a minute passes, and it was not.
    pub fn wait(&mut self, text: &str, times: usize) -> String {
        loop {
            let written = String::from_utf8_lossy(&self.written).into_owned();
            if written.matches(text).count() >= times {
                return written;
            }
            let more = self.read();
            assert!(more, "{text:?} was not written {times} times: {written:?}");
        }
    }

    /// Waits until the child is gone, and returns what is then to be seen, a string a row.
    ///
    /// # Panics
    /// When it writes nothing for a minute, and is still there.
    pub fn rows_at_the_end(&mut self) -> Vec<String> {
        while self.read() {}
        rows(&String::from_utf8_lossy(&self.written), self.columns.into())
    }

    /// Reads what was written since; `false` when nobody is left who could write.
    fn read(&mut self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.ours.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let limit = i32::try_from(LIMIT.as_millis()).expect("a minute is short");
        // SAFETY: one pollfd is passed, and it outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, limit) };
        assert_ne!(ready, 0, "nothing was written for {LIMIT:?}");
        let mut buffer = [0; 4096];
        match self.ours.read(&mut buffer) {
            Ok(count) => {
                self.written.extend(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // EIO: the other end was closed.
            Err(_) => false,
        }
    }
}

fn close_on_exec(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes a plain integer.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Shows what was written as a terminal of this width does, endlessly high. Knows the carriage
/// return, the line feed and "erase line" (ECMA-48 §8.3.41), and shows everything else.
fn rows(written: &str, columns: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut column = 0;
    let mut rest = written;
    while let Some(next) = rest.chars().next() {
        let row = rows.last_mut().expect("there is always a row");
        if let Some(after) = rest.strip_prefix("\x1b[2K") {
            // The cursor stays; so does the text before it, as blanks.
            *row = " ".repeat(column);
            rest = after;
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            '\r' => column = 0,
            '\n' => rows.push(" ".repeat(column)),
            shown if column == columns => {
                rows.push(shown.to_string());
                column = 1;
            }
            shown => {
                let kept = row.chars().take(column).chain([shown]);
                *row = kept.chain(row.chars().skip(column + 1)).collect();
                column += 1;
            }
        }
    }
    if rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: &[&str]) {
        assert_eq!(rows(written, 5), expected, "{written:?}");
    }

    #[test]
    fn rows_are_seen_as_a_terminal_shows_them() {
        check("", &[]);
        check("ab\r\ncd\r\n", &["ab", "cd"]);
        check("ab\ncd", &["ab", "  cd"]);
        check("abc\rx", &["xbc"]);
        check("abc\r\x1b[2Kx", &["x"]);
        check("a\r\n\r\nb", &["a", "", "b"]);
        // A line that is too wide goes on in the next row, which is all that can be erased.
        check("abcdefg\r\x1b[2Kx", &["abcde", "x"]);
        check("abcde\r\x1b[2Kx", &["x"]);
    }

    #[test]
    fn what_a_child_writes_is_read_to_its_end() {
        let mut terminal = Terminal::open(80).unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo one >&2; echo two >&2"])
            .stderr(terminal.stdio())
            .spawn()
            .unwrap();
        terminal.wait("o", 2);
        assert_eq!(terminal.rows_at_the_end(), ["one", "two"]);
        child.wait().unwrap();
    }
}
