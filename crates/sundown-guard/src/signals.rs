//! The signals that stop nothing: SIGHUP asks for a restart, the others are the application's.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Those that have a name. Left out are those that stop a service, those of faults and of children, and SIGPIPE,
/// which tells of a write of one's own.
const OTHERS: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGWINCH,
];

/// How many may wait at a time.
const WAITING: usize = 64;

/// Hears them all from now on. Needs a runtime.
///
/// # Errors
/// If the system refuses a handler.
pub(crate) fn others() -> io::Result<mpsc::Receiver<i32>> {
    let (tell, heard) = mpsc::channel(WAITING);
    for number in OTHERS
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if tell.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(heard)
}
