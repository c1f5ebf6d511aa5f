//! What an application prints, line by line as lines of a log on stdout; and what the guard says, on stderr.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use sundown_telemetry::{Foreign, Redaction};
use tokio::time::{Instant, sleep};

use crate::Guard;

/// A longer line is told in parts, in bytes.
const LONGEST: u64 = 64 * 1024;

/// How long what was printed last may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often is looked whether it was.
const STEP: Duration = Duration::from_millis(5);

/// The threads that read what a generation prints.
#[derive(Default)]
pub(crate) struct Relays {
    threads: Vec<JoinHandle<()>>,
    /// How long its last words are waited for.
    until: Option<Instant>,
}

impl Relays {
    /// Reads what a keeper's command prints, if it is ours to read, until nobody can print there any more.
    pub(crate) fn start(guard: &Guard, generation: u32, keeper: &mut Child) -> Self {
        let stdout = keeper.stdout.take();
        let stderr = keeper.stderr.take();
        let relays = [
            stdout.and_then(|stdout| relay(guard, generation, "stdout", stdout)),
            stderr.and_then(|stderr| relay(guard, generation, "stderr", stderr)),
        ];
        Self {
            threads: relays.into_iter().flatten().collect(),
            until: None,
        }
    }

    /// Waits until all of it is told, once nobody prints any more; not for ever where nobody reads it.
    ///
    /// # Cancel safety
    /// Safe: it goes on where it was.
    pub(crate) async fn last_words(&mut self) {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + LAST_WORDS);
        while self.threads.iter().any(|relay| !relay.is_finished()) && Instant::now() < until {
            sleep(STEP).await;
        }
    }
}

/// On a thread: whoever reads our output may be slow, and then the application waits and not the guard.
fn relay(
    guard: &Guard,
    generation: u32,
    stream: &'static str,
    printed: impl Read + Send + 'static,
) -> Option<JoinHandle<()>> {
    let foreign = Foreign::of(&guard.name, Redaction::default());
    let read = move || {
        let known = [("generation", generation.into()), ("stream", stream.into())];
        let mut printed = BufReader::new(printed);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match printed.by_ref().take(LONGEST).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&bytes);
            let line = foreign.line(text.trim_end_matches(['\r', '\n']), &known);
            // Who does not read it any more loses it.
            let _ = io::stdout().write_all(&line);
        }
    };
    let named = std::thread::Builder::new().name(format!("{stream}-{generation}"));
    // Without a thread the pipe is closed, and the application hears of that by what it prints.
    named.spawn(read).ok()
}

/// Says something of the guard's own on stderr.
pub(crate) fn say(guard: &Guard, text: &str) {
    eprintln!("{}: {text}", guard.name);
    tracing::info!(target: "sundown", service = %guard.name, "{text}");
}
