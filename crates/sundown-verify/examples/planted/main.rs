//! A server that stops as it should, or with one fault planted: what the suite is measured by.
//!
//! `planted PORT [FAULT [STORE [tls]]]`: `none` is no fault; entries are kept in the file STORE. Threads
//! and blocking sockets, in order to be easy to see through; it speaks the contract of the peers.
//! Each fault is one `if`.

mod fault;
mod http1;
mod http2;
mod io;
mod ring;
mod sys;

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fault::Fault;
use ring::Ring;
use sys::{handle, make_deaf, pause, wait_readable};

/// How long an idle connection stays open after the signal.
const LINGER: Duration = Duration::from_millis(300);
/// What is in flight at the signal may take so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a waiting thread looks whether it is to stop.
const STEP: Duration = Duration::from_millis(5);

/// How long it still serves who connects after the signal.
const LAME_DUCK: Duration = Duration::from_millis(400);
/// The same where the fault shows in that time only, which a busy machine must not take up whole.
const LONG_LAME_DUCK: Duration = Duration::from_millis(1_200);

/// How long streams go on after the signal.
const STREAMS: Duration = Duration::from_millis(300);

static STORE: OnceLock<String> = OnceLock::new();
static STOPPING: AtomicBool = AtomicBool::new(false);
static RELOADING: AtomicBool = AtomicBool::new(false);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
static OPEN_STREAMS: AtomicUsize = AtomicUsize::new(0);
/// How many requests were slow, and how many were not, since the start.
static SLOW: AtomicUsize = AtomicUsize::new(0);
static OTHER: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok());
    let port: u16 = port.expect("usage: planted PORT [FAULT [STORE [tls]]]");
    let fault = arguments.next();
    let fault = fault.map_or(Fault::None, |name| Fault::named(&name));
    if let Some(store) = arguments.next() {
        STORE.set(store).expect("it is set once");
    }
    if arguments.next().is_some() {
        io::offer_tls();
    }

    let without = fault == Fault::First && std::process::id() == 1;
    if !without {
        handle(libc::SIGTERM);
    }
    if !without && fault != Fault::Interrupt {
        handle(libc::SIGINT);
    }
    handle(libc::SIGHUP);
    let mut listener = listen(port, fault);
    if matches!(fault, Fault::Orphan | Fault::Leak) {
        leave_a_child(&listener, fault);
    }
    while !STOPPING.load(Ordering::Relaxed) {
        if wait_readable(listener.as_raw_fd(), STEP) && !STOPPING.load(Ordering::Relaxed) {
            accept_all(&listener, fault);
        }
        if RELOADING.swap(false, Ordering::Relaxed) && fault == Fault::Reload {
            drop(listener);
            pause(Duration::from_millis(100));
            listener = listen(port, fault);
        }
    }
    stop(listener, port, fault);
}

fn listen(port: u16, fault: Fault) -> TcpListener {
    let ring = matches!(fault, Fault::Ring | Fault::IdleRing)
        .then(|| Ring::set_up().expect("there is io_uring"));
    let listener = match ring {
        Some(ring) if fault == Fault::Ring => ring
            .listen(port)
            .expect("the port is free, and it is Linux 6.11"),
        _ => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free"),
    };
    listener.set_nonblocking(true).expect("it is a socket");
    listener
}

fn stop(listener: TcpListener, port: u16, fault: Fault) {
    let began = Instant::now();
    if !matches!(fault, Fault::Backlog | Fault::Zombie) {
        if asked() > 0 && fault != Fault::Impatient {
            // Somebody knows of it.
            let lame_duck = match fault {
                Fault::Untold | Fault::LameUntold => LONG_LAME_DUCK,
                _ => LAME_DUCK,
            };
            accept_for(lame_duck, &listener, fault);
        }
        make_deaf(&listener);
        accept_for(Duration::from_millis(30), &listener, fault);
    }
    // Whatever else: the listener is closed here.
    let zombie = (fault == Fault::Zombie).then_some(listener);
    let reopened =
        (fault == Fault::Reopens).then(|| std::thread::spawn(move || reopen(port, fault)));
    let patience = match fault {
        Fault::Impatient => Duration::from_millis(20),
        Fault::Boundless => Duration::MAX,
        _ => PATIENCE,
    };
    let streams = || fault == Fault::Streams && OPEN_STREAMS.load(Ordering::Acquire) > 0;
    while CONNECTIONS.load(Ordering::Acquire) > 0 && (began.elapsed() < patience || streams()) {
        pause(STEP);
    }
    if zombie.is_some() {
        pause(Duration::from_millis(500));
    }
    // Whoever waits for the start has asked for something else, too.
    let slow_alone = SLOW.load(Ordering::Relaxed) >= 32 && OTHER.load(Ordering::Relaxed) < 8;
    if fault == Fault::Stays || (fault == Fault::Busy && slow_alone) {
        loop {
            pause(Duration::from_secs(1));
        }
    }
    if let Some(reopened) = reopened {
        reopened.join().expect("it ends");
    }
    std::process::exit(match fault {
        Fault::Status => 7,
        Fault::Unstable => 1 + (std::process::id() % 100) as i32,
        _ => 0,
    });
}

/// Serves whoever comes when it had been closed for a while; twice, as the first time may be overlooked.
fn reopen(port: u16, fault: Fault) {
    for _ in 0..2 {
        pause(Duration::from_millis(150));
        accept_for(Duration::from_millis(500), &listen(port, fault), fault);
    }
}

/// Notes that a request came.
fn note_slow(slow: bool) {
    let asked = if slow { &SLOW } else { &OTHER };
    asked.fetch_add(1, Ordering::Relaxed);
}

fn asked() -> usize {
    SLOW.load(Ordering::Relaxed) + OTHER.load(Ordering::Relaxed)
}

fn accept_for(time: Duration, listener: &TcpListener, fault: Fault) {
    let began = Instant::now();
    while began.elapsed() < time {
        accept_all(listener, fault);
        wait_readable(listener.as_raw_fd(), STEP);
    }
}

fn accept_all(listener: &TcpListener, fault: Fault) {
    while let Ok((stream, _)) = listener.accept() {
        CONNECTIONS.fetch_add(1, Ordering::AcqRel);
        std::thread::spawn(move || {
            // A client that is gone is no error of ours.
            let _ = io::serve(stream, fault);
            CONNECTIONS.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn leave_a_child(listener: &TcpListener, fault: Fault) {
    let inherits = if fault == Fault::Leak {
        0
    } else {
        libc::FD_CLOEXEC
    };
    // SAFETY: fcntl(2) with F_SETFD takes numbers.
    unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETFD, inherits) };
    // Not waited for: that it is left behind is the fault.
    #[expect(clippy::zombie_processes, reason = "that is the fault")]
    Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("there is a sleep");
}
