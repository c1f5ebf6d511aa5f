//! A server that stops as it should, or with one fault planted: what the suite is measured by.
//!
//! `planted PORT [FAULT [STORE]]`: `none` is no fault; entries are kept in the file STORE. Threads and blocking sockets, in order to be easy to see through; it
//! speaks the contract of the peers. Each fault is one `if`.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long an idle connection stays open after the signal.
const LINGER: Duration = Duration::from_millis(300);
/// What is in flight at the signal may take so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting thread looks whether it is to stop.
const STEP: Duration = Duration::from_millis(5);

/// How long it still serves who connects after the signal.
const LAME_DUCK: Duration = Duration::from_millis(200);

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

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Everything is finished, and the process stays.
    Stays,
    /// The exit code tells of a failure.
    Status,
    /// SIGINT has no handler.
    Interrupt,
    /// The listener is closed with its queue full.
    Backlog,
    /// The listener stays open, and nobody accepts.
    Zombie,
    /// Idle connections are closed at once, whatever their sockets hold.
    BlindIdle,
    /// Answers after the signal do not say close, and are followed by it.
    Untold,
    /// What is in flight gets next to no time.
    Impatient,
    /// A connection whose head is half there is closed.
    HalfHead,
    /// A connection whose first request comes after the signal is closed.
    Early,
    /// Idle connections are waited for.
    WaitsForIdle,
    /// What it answers is not HTTP.
    Garbled,
    /// What never ends is waited for.
    Boundless,
    /// As PID 1 it has no handlers.
    First,
    /// A signal is lost on a server that has had nothing but slow requests, and many.
    Busy,
    /// A child is left behind.
    Orphan,
    /// A child is left behind that has the listener.
    Leak,
    /// Who connects in the lame-duck window is not told to leave.
    LameUntold,
    /// It is ready to the end.
    Ready,
    /// It is not alive once it stops.
    Dead,
    /// A stream that is cut looks whole.
    Whole,
    /// A stream goes on as long as the process may.
    Streams,
    /// An event is cut.
    Event,
    /// A WebSocket is closed without a word.
    Wordless,
    /// A connection is closed with bytes unread.
    Unread,
    /// Every process ends with another status.
    Unstable,
    /// What it acknowledges once it stops is not stored.
    Forgets,
    /// A reload closes the listener for a while.
    Reload,
}

fn fault(name: Option<&str>) -> Fault {
    match name {
        None | Some("none") => Fault::None,
        Some("stays") => Fault::Stays,
        Some("status") => Fault::Status,
        Some("interrupt") => Fault::Interrupt,
        Some("backlog") => Fault::Backlog,
        Some("zombie") => Fault::Zombie,
        Some("blind-idle") => Fault::BlindIdle,
        Some("untold") => Fault::Untold,
        Some("impatient") => Fault::Impatient,
        Some("half-head") => Fault::HalfHead,
        Some("early") => Fault::Early,
        Some("waits-for-idle") => Fault::WaitsForIdle,
        Some("garbled") => Fault::Garbled,
        Some("boundless") => Fault::Boundless,
        Some("first") => Fault::First,
        Some("busy") => Fault::Busy,
        Some("orphan") => Fault::Orphan,
        Some("leak") => Fault::Leak,
        Some("lame-untold") => Fault::LameUntold,
        Some("ready") => Fault::Ready,
        Some("dead") => Fault::Dead,
        Some("whole") => Fault::Whole,
        Some("streams") => Fault::Streams,
        Some("event") => Fault::Event,
        Some("wordless") => Fault::Wordless,
        Some("unread") => Fault::Unread,
        Some("unstable") => Fault::Unstable,
        Some("forgets") => Fault::Forgets,
        Some("reload") => Fault::Reload,
        Some(other) => panic!("no fault is named {other}"),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok());
    let port: u16 = port.expect("usage: planted PORT [FAULT]");
    let fault = fault(arguments.next().as_deref());
    if let Some(store) = arguments.next() {
        STORE.set(store).expect("it is set once");
    }

    let without = fault == Fault::First && std::process::id() == 1;
    if !without {
        handle(libc::SIGTERM);
    }
    if !without && fault != Fault::Interrupt {
        handle(libc::SIGINT);
    }
    handle(libc::SIGHUP);
    let mut listener = listen(port);
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
            listener = listen(port);
        }
    }
    stop(listener, fault);
}

fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    listener.set_nonblocking(true).expect("it is a socket");
    listener
}

fn stop(listener: TcpListener, fault: Fault) {
    let began = Instant::now();
    if !matches!(fault, Fault::Backlog | Fault::Zombie) {
        if asked() > 0 && fault != Fault::Impatient {
            // Somebody knows of it.
            accept_for(LAME_DUCK, &listener, fault);
        }
        make_deaf(&listener);
        accept_for(Duration::from_millis(30), &listener, fault);
    }
    let zombie = (fault == Fault::Zombie).then_some(listener);
    let patience = match fault {
        Fault::Impatient => Duration::from_millis(20),
        Fault::Boundless => Duration::MAX,
        Fault::WaitsForIdle => 2 * PATIENCE,
        _ => PATIENCE,
    };
    let streams = || fault == Fault::Streams && OPEN_STREAMS.load(Ordering::Acquire) > 0;
    while CONNECTIONS.load(Ordering::Acquire) > 0 && (began.elapsed() < patience || streams()) {
        pause(STEP);
    }
    if zombie.is_some() {
        pause(Duration::from_secs(1));
    }
    // Whoever waits for the start has asked for something else, too.
    let slow_alone = SLOW.load(Ordering::Relaxed) >= 32 && OTHER.load(Ordering::Relaxed) < 8;
    if fault == Fault::Stays || (fault == Fault::Busy && slow_alone) {
        loop {
            pause(Duration::from_secs(1));
        }
    }
    std::process::exit(match fault {
        Fault::Status => 7,
        Fault::Unstable => 1 + (std::process::id() % 100) as i32,
        _ => 0,
    });
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
            let _ = serve(stream, fault);
            CONNECTIONS.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Serves one connection to its end.
fn serve(mut stream: TcpStream, fault: Fault) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let accepted_late = STOPPING.load(Ordering::Relaxed);
    let mut buffer = Vec::new();
    let mut served = false;
    loop {
        if buffer.is_empty() && !wait_for_request(&stream, served, fault) {
            return close(stream);
        }
        let stopping = STOPPING.load(Ordering::Relaxed);
        if fault == Fault::Early && !served && stopping && !accepted_late && buffer.is_empty() {
            return Ok(());
        }
        let Some(request) = read_request(&mut stream, &mut buffer, fault)? else {
            return close(stream);
        };
        match request.path.as_str() {
            "/stream" => return stream_on(stream, "text/plain", b"more\n", fault),
            "/sse" => return stream_on(stream, "text/event-stream", b"data: more\n\n", fault),
            "/ws" => return websocket(stream, fault),
            _ => {}
        }
        let leaves = answer(&mut stream, &request, accepted_late, fault)?;
        if fault == Fault::Unread && STOPPING.load(Ordering::Relaxed) {
            return Ok(());
        }
        served = true;
        if leaves {
            return close(stream);
        }
    }
}

/// Waits for the first byte of a request; false when the connection is to be closed.
fn wait_for_request(stream: &TcpStream, served: bool, fault: Fault) -> bool {
    let since = Instant::now();
    let mut linger = None;
    loop {
        let blind = fault == Fault::BlindIdle && served;
        if blind && STOPPING.load(Ordering::Relaxed) {
            return false;
        }
        if wait_readable(stream.as_raw_fd(), STEP) {
            // Again: the signal may have come together with the bytes.
            return !(blind && STOPPING.load(Ordering::Relaxed));
        }
        if STOPPING.load(Ordering::Relaxed) {
            let until = *linger.get_or_insert_with(|| Instant::now() + LINGER);
            let long = fault == Fault::WaitsForIdle && since.elapsed() < 2 * PATIENCE;
            if Instant::now() >= until && !long {
                return false;
            }
        }
    }
}

struct Request {
    method: String,
    path: String,
}

/// Reads a head and its body; what comes behind stays in the buffer. `None` at the client's end.
fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    fault: Fault,
) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !buffer.is_empty() && fault == Fault::HalfHead && STOPPING.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if wait_readable(stream.as_raw_fd(), STEP) && !read_more(stream, buffer)? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0);
    while buffer.len() < head_end + length {
        if !read_more(stream, buffer)? {
            return Ok(None);
        }
    }
    buffer.drain(..head_end + length);
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next(), words.next());
    Ok(Some(Request {
        method: method.unwrap_or_default(),
        path: path.unwrap_or_default(),
    }))
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut some = [0; 16 * 1024];
    let read = stream.read(&mut some)?;
    buffer.extend_from_slice(&some[..read]);
    Ok(read > 0)
}

/// Answers; true when the connection ends with that.
fn answer(
    stream: &mut TcpStream,
    request: &Request,
    accepted_late: bool,
    fault: Fault,
) -> io::Result<bool> {
    let path = request.path.split('?').next();
    let asked = if path == Some("/slow") { &SLOW } else { &OTHER };
    asked.fetch_add(1, Ordering::Relaxed);
    let body = match path {
        Some("/slow") => {
            pause(Duration::from_millis(300));
            b"ok".to_vec()
        }
        Some("/endless") => loop {
            pause(Duration::from_secs(60));
        },
        Some("/big") => vec![b'b'; 16 << 20],
        _ => b"ok".to_vec(),
    };
    if fault == Fault::Garbled {
        stream.write_all(b"220 ready\r\n")?;
        return Ok(true);
    }
    let stopping = STOPPING.load(Ordering::Relaxed);
    let untold = fault == Fault::Untold || (fault == Fault::LameUntold && accepted_late);
    let close = match stopping && !untold {
        true => "connection: close\r\n",
        false => "",
    };
    let status = match path {
        Some("/ready") if stopping && fault != Fault::Ready => "503 Service Unavailable",
        Some("/live") if stopping && fault == Fault::Dead => "503 Service Unavailable",
        Some(entry) if entry.starts_with("/ledger/") => {
            let forgets = stopping && fault == Fault::Forgets;
            keep_or_find(request, forgets)?
        }
        _ => "200 OK",
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{close}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(stopping)
}

/// Stores an entry, or says whether there is one; its path is its name.
fn keep_or_find(request: &Request, forgets: bool) -> io::Result<&'static str> {
    let store = STORE.get().expect("a ledger needs a STORE");
    if request.method != "POST" {
        let found = std::fs::read_to_string(store)?
            .lines()
            .any(|line| line == request.path);
        return Ok(if found { "200 OK" } else { "404 Not Found" });
    }
    if !forgets {
        let mut file = OpenOptions::new().append(true).create(true).open(store)?;
        file.write_all(format!("{}\n", request.path).as_bytes())?;
    }
    Ok("201 Created")
}

/// Sends one piece after the other, for a while beyond the signal.
fn stream_on(mut stream: TcpStream, kind: &str, piece: &[u8], fault: Fault) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    OPEN_STREAMS.fetch_add(1, Ordering::AcqRel);
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        write_chunk(&mut stream, piece)?;
        pause(STEP);
        if until.is_none() && STOPPING.load(Ordering::Relaxed) && fault != Fault::Streams {
            until = Some(Instant::now() + STREAMS);
        }
    }
    if fault == Fault::Event {
        write_chunk(&mut stream, &piece[..piece.len() / 2])?;
    }
    if fault == Fault::Whole {
        stream.write_all(b"0\r\n\r\n")?;
    }
    close(stream)
}

fn write_chunk(stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", piece.len())?;
    stream.write_all(piece)?;
    stream.write_all(b"\r\n")
}

/// Says nothing until the signal, and then that it goes away.
fn websocket(mut stream: TcpStream, fault: Fault) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )?;
    while !STOPPING.load(Ordering::Relaxed) {
        pause(STEP);
    }
    if fault != Fault::Wordless {
        stream.write_all(&[0x88, 2, 3, 0xe9])?;
    }
    close(stream)
}

/// Sends FIN, and reads until the client's.
fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
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

extern "C" fn on_signal(signal: libc::c_int) {
    let told = if signal == libc::SIGHUP {
        &RELOADING
    } else {
        &STOPPING
    };
    told.store(true, Ordering::Relaxed);
}

fn handle(signal: i32) {
    // SAFETY: the handler does nothing but store to an atomic.
    unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
}

/// Lets no more connects in (`SO_BINDTOIFINDEX` to an interface that no system has, socket(7)).
fn make_deaf(listener: &TcpListener) {
    const SO_BINDTOIFINDEX: i32 = 62;
    let nowhere = libc::c_int::MAX;
    // SAFETY: the pointer and the length describe `nowhere`, which outlives the call.
    unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            (&raw const nowhere).cast(),
            size_of_val(&nowhere) as libc::socklen_t,
        );
    }
}

fn wait_readable(fd: RawFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd is passed, and it outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as libc::c_int) > 0 }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server that is slow on purpose"
)]
fn pause(length: Duration) {
    std::thread::sleep(length);
}
