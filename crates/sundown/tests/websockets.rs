//! WebSockets over a stop: told between two messages, awaited, and named when they stay.

mod trial;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trial::{Client, Trial, spawn};

const TERM: i32 = libc::SIGTERM;
const GOING_AWAY: u16 = 1001;

/// A WebSocket from the client's side, byte by byte.
struct WebSocket {
    client: Client,
    seen: Vec<u8>,
}

/// A frame of the server's: opcode with FIN, and payload.
type Frame = (u8, Vec<u8>);

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

impl WebSocket {
    async fn open(trial: &Trial, path: &str) -> Self {
        let mut client = trial.connect().await;
        let upgrade = "host: trial\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: c3VuZG93biBzdW5kb3duIQ==";
        client
            .send(&format!("GET {path} HTTP/1.1\r\n{upgrade}\r\n\r\n"))
            .await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(client.stream.read_u8().await.unwrap());
        }
        assert!(
            seen.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&seen)
        );
        Self {
            client,
            seen: Vec::new(),
        }
    }

    /// Sends a short frame, masked with zeros.
    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload);
        self.client.stream.write_all(&frame).await.unwrap();
    }

    /// Reads a frame; `None` at the end, which must be behind a whole one.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if self.client.stream.read_buf(&mut self.seen).await.unwrap() == 0 {
                assert!(self.seen.is_empty(), "ended within a frame");
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let seen = &self.seen;
        let (head, length) = match *seen.get(1)? {
            126 => (
                4,
                u64::from(u16::from_be_bytes([*seen.get(2)?, *seen.get(3)?])),
            ),
            127 => (10, u64::from_be_bytes(seen.get(2..10)?.try_into().unwrap())),
            short => (2, u64::from(short)),
        };
        let end = head + length as usize;
        let frame = (seen[0], seen.get(head..end)?.to_vec());
        self.seen.drain(..end);
        Some(frame)
    }
}

fn code((first, payload): &Frame) -> u16 {
    assert_eq!(*first, CLOSE);
    u16::from_be_bytes([payload[0], payload[1]])
}

#[tokio::test]
async fn an_idle_websocket_is_told_and_its_answer_is_awaited() {
    let mut trial = Trial::start().await;
    let mut websocket = WebSocket::open(&trial, "/ws").await;
    websocket.send(TEXT, b"hello").await;
    assert_eq!(websocket.read().await.unwrap(), (TEXT, b"hello".to_vec()));

    trial.signal(TERM);
    let close = websocket.read().await.unwrap();
    assert_eq!(code(&close), GOING_AWAY);
    assert_eq!(close.1[2..], *b"the service is stopping");
    // A message that was on its way is heard; its answer could not be.
    websocket.send(CLOSE, &close.1).await;
    assert_eq!(
        websocket.read().await,
        None,
        "the second close is swallowed"
    );
    let (status, said) = trial.exit().await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("echo ended"), "{said}");
}

#[tokio::test]
async fn a_websocket_that_is_written_to_is_told_between_two_messages() {
    let mut trial = Trial::start().await;
    let mut websocket = WebSocket::open(&trial, "/feed").await;
    for _ in 0..50 {
        assert_eq!(websocket.read().await.unwrap().0, BINARY);
    }
    trial.signal(TERM);
    let close = loop {
        let frame = websocket
            .read()
            .await
            .expect("a close comes before the end");
        if frame.0 != BINARY {
            break frame;
        }
    };
    assert_eq!(code(&close), GOING_AWAY);
    websocket.send(CLOSE, &close.1).await;
    assert_eq!(websocket.read().await, None);
    let (status, said) = trial.exit().await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("feed ended"), "{said}");
}

#[tokio::test]
async fn a_websocket_that_never_answers_is_cut_off_by_name() {
    let spawn = spawn("")
        .env("SUNDOWN_GRACE", "1s")
        .env("SUNDOWN_REPORT", "-");
    let mut trial = Trial::of(spawn).await;
    let mut websocket = WebSocket::open(&trial, "/ws").await;
    trial.signal(TERM);
    assert_eq!(code(&websocket.read().await.unwrap()), GOING_AWAY);
    let (status, said) = trial.exit().await;
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("upgraded connection GET /ws"), "{said}");
    // It is over before the process is: its owner has heard of the cut.
    let report: serde_json::Value = serde_json::from_str(&trial.process.stdout()).unwrap();
    assert_eq!(report["connections"]["cut_off"], 1, "{report}");
}

#[tokio::test]
async fn a_websocket_that_may_stay_is_told_at_the_end_of_the_drain() {
    let mut trial = Trial::of(spawn("stays").env("SUNDOWN_GRACE", "2s")).await;
    let mut websocket = WebSocket::open(&trial, "/ws").await;
    trial.signal(TERM);
    trial.says("draining").await;
    websocket.send(TEXT, b"still here").await;
    assert_eq!(websocket.read().await.unwrap().1, b"still here");
    let close = websocket.read().await.unwrap();
    assert_eq!(code(&close), GOING_AWAY);
    websocket.send(CLOSE, &close.1).await;
    assert_eq!(websocket.read().await, None);
    assert_eq!(trial.exit().await.0, 0);
}
