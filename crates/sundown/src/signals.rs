//! Turns the signals that a service hears into bytes on a pipe.
//!
//! The handlers are process-wide and write to every service's pipe; `control` reads its own on a
//! thread that the runtime cannot block. Signals are caught, not blocked, so children start with
//! default dispositions and an empty mask (execve(2)); what the parent blocked or ignored is put
//! right.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use crate::sys;

/// The signals that stop a service.
pub(crate) const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// The signals that stop nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    /// Files are to be read again; a terminal that closes sends it, too.
    reload: Option<i32>,
    /// What is open is to be told.
    status: Option<i32>,
    pub(crate) restart: Option<i32>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            reload: Some(libc::SIGHUP),
            status: Some(libc::SIGUSR1),
            restart: Some(libc::SIGUSR2),
        }
    }
}

impl Requests {
    pub(crate) fn none() -> Self {
        Self {
            reload: None,
            status: None,
            restart: None,
        }
    }

    fn heard(self) -> impl Iterator<Item = i32> {
        [self.reload, self.status, self.restart]
            .into_iter()
            .flatten()
    }
}

/// How many services one process can run at a time.
const SLOTS: usize = 16;
const FREE: i32 = -1;

static PIPES: [AtomicI32; SLOTS] = [const { AtomicI32::new(FREE) }; SLOTS];

/// What stood before the first service of this process, to be put back after the last.
static BEFORE: Mutex<Vec<(i32, libc::sigaction)>> = Mutex::new(Vec::new());

/// A byte that is no signal: it only wakes the reader.
const WAKE: u8 = 0;

/// Names a signal as people write it.
pub(crate) fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        _ => "a signal",
    }
}

/// Receives these signals of this process, and wake-ups from other threads.
pub(crate) struct Signals {
    slot: usize,
    reader: PipeReader,
    writer: PipeWriter,
}

/// Wakes a [`Signals`] from any thread.
pub(crate) struct Waker(PipeWriter);

impl Waker {
    pub(crate) fn wake(&self) {
        // A full pipe wakes the reader as well.
        let _ = (&self.0).write(&[WAKE]);
    }
}

impl Signals {
    /// Installs the handlers, and unblocks the signals on this thread.
    ///
    /// # Errors
    /// The system refused a pipe or a handler, or sixteen services already run here.
    pub(crate) fn install(requests: Requests) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        sys::set_nonblocking(reader.as_fd())?;
        sys::set_nonblocking(writer.as_fd())?;
        let slot = take_slot(writer.as_raw_fd())?;
        let signals = Self {
            slot,
            reader,
            writer,
        };
        let mut before = BEFORE
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let heard: Vec<i32> = TERMINATION.into_iter().chain(requests.heard()).collect();
        for signal in &heard {
            if before.iter().all(|(other, _)| other != signal) {
                before.push((*signal, sys::handle_signal(*signal, on_signal)?));
            }
        }
        drop(before);
        // Last: a signal that the parent had blocked is delivered here, to our handler.
        sys::unblock(&heard)?;
        Ok(signals)
    }

    /// Leaves the handlers in place for good: a process that is about to exit must not be killed
    /// by a late signal after it has drained.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        self.writer.try_clone().map(Waker)
    }

    /// Waits for signals or a wake-up; returns the signals, in order of arrival.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Vec<i32> {
        match sys::wait_readable(self.reader.as_fd(), timeout) {
            Ok(true) => self.drain(),
            _ => Vec::new(),
        }
    }

    fn drain(&mut self) -> Vec<i32> {
        let mut bytes = [0_u8; 64];
        let count = self.reader.read(&mut bytes).unwrap_or(0);
        bytes[..count]
            .iter()
            .filter(|byte| **byte != WAKE)
            .map(|byte| i32::from(*byte))
            .collect()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        PIPES[self.slot].store(FREE, Ordering::Release);
        let mut before = BEFORE
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let last = PIPES
            .iter()
            .all(|pipe| pipe.load(Ordering::Acquire) == FREE);
        if last {
            for (signal, action) in before.drain(..) {
                let _ = sys::set_disposition(signal, &action);
            }
        }
    }
}

fn take_slot(fd: i32) -> io::Result<usize> {
    PIPES
        .iter()
        .position(|pipe| {
            pipe.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
        .ok_or_else(|| io::Error::other("sixteen services already run in this process"))
}

extern "C" fn on_signal(signal: libc::c_int) {
    for pipe in &PIPES {
        let fd = pipe.load(Ordering::Acquire);
        if fd != FREE {
            sys::write_byte_in_handler(fd, signal as u8);
        }
    }
}
