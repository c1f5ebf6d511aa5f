//! What a person at a terminal sees of a stop.

mod trial;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command};

use sundown_testkit::Terminal;
use trial::{get, spawn_path};

/// Moves to the beginning of the row and erases it.
const RENEW: &str = "\r\x1b[2K";

/// A trial at a terminal; killed and reaped when dropped.
struct AtTerminal {
    child: Child,
    terminal: Terminal,
}

impl AtTerminal {
    fn start(columns: u16) -> Self {
        let mut terminal = Terminal::open(columns).unwrap();
        let mut command = Command::new(spawn_path());
        let child = command.stderr(terminal.stdio()).spawn().unwrap();
        Self { child, terminal }
    }

    /// Begins a request that never ends. It comes in one segment behind one that is answered, so
    /// that the server has it when that answer is here.
    fn ask_for_ever(&mut self) -> TcpStream {
        let said = self.terminal.wait("\n", 1);
        let (_, address) = said.split_once("http on ").unwrap();
        let mut client = TcpStream::connect(address.trim()).unwrap();
        let requests = get("/") + &get("/never");
        client.write_all(requests.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        client
    }

    fn terminate(&self) {
        // SAFETY: kill(2) takes two numbers; the child is not reaped yet, so the PID is its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        assert_eq!(sent, 0);
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Both do nothing if the child was reaped before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a trial that has one request which never ends, and hurries it once progress was renewed.
fn rows_of_a_stop(columns: u16) -> Vec<String> {
    let mut trial = AtTerminal::start(columns);
    let _client = trial.ask_for_ever();
    trial.terminate();
    trial.terminal.wait(RENEW, 3);
    trial.terminate();
    let rows = trial.terminal.rows_at_the_end();
    assert_eq!(trial.child.wait().unwrap().code(), Some(4), "{rows:#?}");
    rows
}

/// Counts the rows that tell of progress.
fn progress(rows: &[String]) -> usize {
    let tell = |row: &&String| row.starts_with("trial: draining, ");
    rows.iter().filter(tell).count()
}

#[test]
fn progress_is_renewed_in_its_row_and_the_summary_has_rows_of_its_own() {
    let rows = rows_of_a_stop(200);
    let mut rest = rows.iter();
    for begins in [
        "trial: ready, http on 127.0.0.1:",
        "trial: SIGTERM: stopping, within 25s; again to hurry",
        "trial: draining, ",
        "trial: SIGTERM again: cutting off",
        "trial: stopped in ",
        "  requests: 1 finished",
        "  phases: starting ",
        "  cut off: request GET /never from 127.0.0.1:",
    ] {
        let found = rest.any(|row| row.starts_with(begins));
        assert!(found, "no row for {begins:?} in {rows:#?}");
    }
    // Three times or more it was told: in one row until the second signal, in one more after it.
    assert!(progress(&rows) <= 2, "{rows:#?}");
    let named = |row: &String| row.contains("1 at work: request GET /never from 127.0.0.1:");
    assert!(rows.iter().any(named), "{rows:#?}");
}

#[test]
fn no_row_between_two_messages_is_blank() {
    let rows = rows_of_a_stop(200);
    assert!(rows.iter().all(|row| !row.trim().is_empty()), "{rows:#?}");
}

#[test]
fn progress_that_is_wider_than_the_terminal_still_has_one_row() {
    let rows = rows_of_a_stop(80);
    assert!(progress(&rows) <= 2, "{rows:#?}");
}
