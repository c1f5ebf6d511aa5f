//! A bounded buffer of lines, and the thread that writes it out.
//!
//! Whoever logs copies a line into the buffer and goes on; many lines leave by one write. A line is never lost in
//! silence: what found the buffer full and what could not be written is counted, and told in the log itself once
//! there is room.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Counts, WhenFull};

/// How long the first line of a write waits for others.
const GATHER: Duration = Duration::from_millis(5);

/// Makes the line that tells how many were lost.
pub(super) type LossNotice = Box<dyn Fn(u64) -> Vec<u8> + Send>;

/// Where lines are put.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The thread waits for lines.
    wake: Condvar,
    /// Others wait for the thread.
    written: Condvar,
    capacity: usize,
    when_full: WhenFull,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// How many lines are in it.
    lines: u64,
    /// How many are in the hands of the thread.
    leaving: u64,
    counts: Counts,
    /// The thread does not look until it is woken.
    sleeps: bool,
    /// Somebody waits until the buffer is empty.
    hurries: bool,
    closed: bool,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives none.
    pub(super) fn start(
        sink: Box<dyn Write + Send>,
        capacity: usize,
        when_full: WhenFull,
        loss_notice: LossNotice,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
            capacity,
            when_full,
        });
        let writes = shared.clone();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writes.write_all(sink, &loss_notice))?;
        Ok((Self(shared), thread))
    }

    /// Takes a line, which ends with a line feed.
    pub(super) fn push(&self, line: &[u8]) {
        let shared = &self.0;
        let mut state = shared.lock();
        // One that alone is longer than the buffer may be is taken when that is empty.
        while !state.buffer.is_empty() && state.buffer.len() + line.len() > shared.capacity {
            if shared.when_full == WhenFull::Drop || state.closed {
                state.counts.dropped += 1;
                return;
            }
            state.hurries = true;
            shared.wake.notify_one();
            state = wait(&shared.written, state, None);
        }
        if state.closed {
            state.counts.dropped += 1;
            return;
        }
        state.buffer.extend_from_slice(line);
        state.lines += 1;
        let wakes = state.sleeps || state.buffer.len() > shared.capacity / 2;
        if wakes {
            state.sleeps = false;
            shared.wake.notify_one();
        }
    }

    /// Waits until all that was taken before is written, but not for longer than this; returns how many lines are
    /// not.
    pub(super) fn flush(&self, within: Duration) -> u64 {
        let shared = &self.0;
        let until = Instant::now() + within;
        let mut state = shared.lock();
        let taken = state.taken();
        while state.done() < taken {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return taken - state.done();
            };
            state.hurries = true;
            shared.wake.notify_one();
            state = wait(&shared.written, state, Some(left));
        }
        0
    }

    /// Takes no more lines; the thread ends once it has written what it has.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.wake.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        self.0.lock().counts
    }
}

impl State {
    fn taken(&self) -> u64 {
        self.done() + self.lines + self.leaving
    }

    fn done(&self) -> u64 {
        self.counts.written + self.counts.failed
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until it is closed and empty.
    fn write_all(&self, mut sink: Box<dyn Write + Send>, loss_notice: &LossNotice) {
        let mut leaving = Vec::new();
        let (mut told, mut fails) = (0, false);
        while let Some(lines) = self.gather(&mut leaving) {
            let mut result = sink.write_all(&leaving).and_then(|()| sink.flush());
            tell_of_failure(&mut fails, &result);
            leaving.clear();
            let mut state = self.lock();
            state.leaving = 0;
            match &result {
                Ok(()) => state.counts.written += lines,
                Err(_) => state.counts.failed += lines,
            }
            let lost = state.counts.lost();
            drop(state);
            if result.is_ok() && lost > told {
                result = sink
                    .write_all(&loss_notice(lost - told))
                    .and_then(|()| sink.flush());
                if result.is_ok() {
                    told = lost;
                }
            }
            self.written.notify_all();
        }
        self.written.notify_all();
    }

    /// Waits for lines, and a little longer for more; `None` once there will be none.
    fn gather(&self, leaving: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.lock();
        state.hurries = false;
        while state.buffer.is_empty() {
            if state.closed {
                return None;
            }
            state.sleeps = true;
            state = wait(&self.wake, state, None);
        }
        state.sleeps = false;
        let until = Instant::now() + GATHER;
        while !state.closed && !state.hurries && state.buffer.len() <= self.capacity / 2 {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            state = wait(&self.wake, state, Some(left));
        }
        std::mem::swap(&mut state.buffer, leaving);
        state.leaving = std::mem::take(&mut state.lines);
        Some(state.leaving)
    }
}

/// Says on stderr when writing begins to fail: the log itself may never be able to.
fn tell_of_failure(fails: &mut bool, result: &io::Result<()>) {
    if let (false, Err(error)) = (*fails, result) {
        let _ = writeln!(
            io::stderr(),
            "warning: the log cannot be written ({error}): its lines are lost until it can"
        );
    }
    *fails = result.is_err();
}

fn wait<'a>(
    signal: &Condvar,
    state: MutexGuard<'a, State>,
    within: Option<Duration>,
) -> MutexGuard<'a, State> {
    match within {
        Some(within) => {
            let waited = signal.wait_timeout(state, within);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
        None => signal.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes down what it is given, once it may.
    struct Sink {
        may: mpsc::Receiver<io::Result<()>>,
        wrote: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().unwrap_or(Ok(()))?;
            self.wrote.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stage {
        writer: Writer,
        thread: JoinHandle<()>,
        allow: mpsc::Sender<io::Result<()>>,
        wrote: Arc<Mutex<Vec<u8>>>,
    }

    fn stage(capacity: usize, when_full: WhenFull) -> Stage {
        let (allow, may) = mpsc::channel();
        let wrote = Arc::new(Mutex::default());
        let sink = Sink {
            may,
            wrote: wrote.clone(),
        };
        let loss_notice = Box::new(|lost| format!("lost {lost}\n").into_bytes());
        let (writer, thread) =
            Writer::start(Box::new(sink), capacity, when_full, loss_notice).unwrap();
        Stage {
            writer,
            thread,
            allow,
            wrote,
        }
    }

    impl Stage {
        fn end(self) -> (String, Counts) {
            drop(self.allow);
            self.writer.close();
            self.thread.join().unwrap();
            let wrote = self.wrote.lock().unwrap().clone();
            (String::from_utf8(wrote).unwrap(), self.writer.counts())
        }
    }

    #[test]
    fn what_finds_it_full_is_counted_and_told_of() {
        let stage = stage(8, WhenFull::Drop);
        stage.writer.push(b"first\n");
        // The thread has it, and is not allowed to write.
        while stage.writer.0.lock().leaving == 0 {
            std::thread::yield_now();
        }
        stage.writer.push(b"second\n");
        stage.writer.push(b"third\n");
        assert_eq!(stage.writer.flush(Duration::ZERO), 2);
        let (wrote, counts) = stage.end();
        assert_eq!(wrote, "first\nlost 1\nsecond\n");
        assert_eq!((counts.written, counts.dropped, counts.failed), (2, 1, 0));
    }

    #[test]
    fn whoever_prefers_to_wait_loses_none() {
        let stage = stage(8, WhenFull::Wait);
        let (writer, allow) = (stage.writer.clone(), stage.allow.clone());
        let waits = std::thread::spawn(move || {
            for line in [b"one 1\n", b"two 2\n", b"tri 3\n"] {
                writer.push(line);
            }
        });
        for _ in 0..3 {
            allow.send(Ok(())).unwrap();
        }
        drop(allow);
        waits.join().unwrap();
        assert_eq!(stage.writer.flush(Duration::from_secs(60)), 0);
        let (wrote, counts) = stage.end();
        assert_eq!(wrote, "one 1\ntwo 2\ntri 3\n");
        assert_eq!(counts.lost(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_of() {
        let stage = stage(1024, WhenFull::Drop);
        stage
            .allow
            .send(Err(io::ErrorKind::StorageFull.into()))
            .unwrap();
        stage.writer.push(b"first\n");
        assert_eq!(stage.writer.flush(Duration::from_secs(60)), 0);
        stage.allow.send(Ok(())).unwrap();
        stage.allow.send(Ok(())).unwrap();
        stage.writer.push(b"second\n");
        let (wrote, counts) = stage.end();
        assert_eq!(wrote, "second\nlost 1\n");
        assert_eq!((counts.written, counts.failed), (1, 1));
    }
}
