//! HTTP/1.1, streams and WebSockets, on a thread and blocking sockets.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::http2;
use crate::io::Io;
use crate::sys::pause;
use crate::{LINGER, OPEN_STREAMS, PATIENCE, STEP, STOPPING, STORE, STREAMS, note_slow};

/// Serves one connection to its end.
pub(crate) fn serve(mut stream: Io, fault: Fault) -> io::Result<()> {
    let accepted_late = STOPPING.load(Ordering::Relaxed);
    let mut buffer = Vec::new();
    let mut served = false;
    loop {
        if buffer.is_empty() && !wait_for_request(&mut stream, served, fault) {
            return stream.end(fault);
        }
        if !served && stream.speaks_http2()? {
            return http2::serve(stream.into_plain(), fault);
        }
        let stopping = STOPPING.load(Ordering::Relaxed);
        if fault == Fault::Early && !served && stopping && !accepted_late && buffer.is_empty() {
            return Ok(());
        }
        let Some(request) = read_request(&mut stream, &mut buffer, fault)? else {
            return stream.end(fault);
        };
        match request.path.as_str() {
            "/stream" => return stream_on(stream, "text/plain", b"more\n", fault),
            "/sse" => return stream_on(stream, "text/event-stream", b"data: more\n\n", fault),
            "/ws" => return websocket(stream, fault),
            _ => {}
        }
        let leaves = answer(&mut stream, &request, accepted_late, fault)?;
        // Of a short answer nobody was told that it is the last.
        let last = leaves || request.path == "/big";
        if fault == Fault::Unread && last && STOPPING.load(Ordering::Relaxed) {
            return Ok(());
        }
        served = true;
        if leaves {
            return stream.end(fault);
        }
    }
}

/// Waits for the first byte of a request; false when the connection is to be closed.
fn wait_for_request(stream: &mut Io, served: bool, fault: Fault) -> bool {
    let since = Instant::now();
    let mut linger = None;
    loop {
        let blind = fault == Fault::BlindIdle && served;
        if blind && STOPPING.load(Ordering::Relaxed) {
            return false;
        }
        if stream.has_bytes(STEP) {
            // Again: the signal may have come together with the bytes.
            return !(blind && STOPPING.load(Ordering::Relaxed));
        }
        if STOPPING.load(Ordering::Relaxed) {
            let until = *linger.get_or_insert_with(|| Instant::now() + LINGER);
            let long = fault == Fault::WaitsForIdle && since.elapsed() < PATIENCE;
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
    stream: &mut Io,
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
        if stream.has_bytes(STEP) && !read_more(stream, buffer)? {
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

fn read_more(stream: &mut Io, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut some = [0; 16 * 1024];
    let read = stream.read(&mut some)?;
    buffer.extend_from_slice(&some[..read]);
    Ok(read > 0)
}

/// Answers; true when the connection ends with that.
fn answer(
    stream: &mut Io,
    request: &Request,
    accepted_late: bool,
    fault: Fault,
) -> io::Result<bool> {
    let path = request.path.split('?').next();
    note_slow(path == Some("/slow"));
    let body = match path {
        Some("/slow") => {
            pause(Duration::from_millis(300));
            b"ok".to_vec()
        }
        Some("/endless") => loop {
            pause(Duration::from_secs(60));
        },
        Some("/big") => vec![b'b'; 8 << 20],
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
fn stream_on(mut stream: Io, kind: &str, piece: &[u8], fault: Fault) -> io::Result<()> {
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
    stream.end(fault)
}

fn write_chunk(stream: &mut Io, piece: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", piece.len())?;
    stream.write_all(piece)?;
    stream.write_all(b"\r\n")
}

/// Says nothing until the signal, and then that it goes away.
fn websocket(mut stream: Io, fault: Fault) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )?;
    while !STOPPING.load(Ordering::Relaxed) {
        pause(STEP);
    }
    if fault != Fault::Wordless {
        stream.write_all(&[0x88, 2, 3, 0xe9])?;
    }
    stream.end(fault)
}
