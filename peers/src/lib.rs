//! The contract that every peer answers, as one axum router for the Rust peers that use axum.
//!
//! Never stops anything: how a peer stops is what tells the peers apart, so each binary does it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::Deserialize;

/// One piece of a `/big` answer; a MiB is sixteen of them.
pub static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// How many [`CHUNK`]s make a MiB.
pub const CHUNKS_PER_MIB: u64 = (1 << 20) / CHUNK.len() as u64;

/// One event of `/events`.
const EVENT: &[u8] = b"data: more\n\n";

/// How often there is one.
const EVERY: Duration = Duration::from_millis(20);

/// Answers `/`, `/fast`, `/slow?ms=`, `/big?mib=`, `/events`, `/flood`, `/ws` and `/upload` as `peers/README.md` says.
pub fn router() -> Router {
    Router::new()
        .route("/", get(ok))
        .route("/fast", get(ok))
        .route("/slow", get(slow))
        .route("/big", get(big))
        .route("/events", get(events))
        .route("/flood", get(flood))
        .route("/ws", get(websocket))
        .route("/upload", post(upload))
        .layer(DefaultBodyLimit::disable())
}

/// Reads the port, which is the first argument of every peer, and of most the only one.
///
/// # Panics
/// If there is none or it is not a port: a peer has nothing to do without one.
pub fn port() -> u16 {
    let argument = std::env::args().nth(1);
    argument
        .and_then(|port| port.parse().ok())
        .expect("the first argument is the port to listen on")
}

/// Where a peer serves the same under TLS, and as whom.
pub struct Tls {
    /// The port.
    pub port: u16,
    /// The certificate with those that lead to its authority, as PEM.
    pub certificates: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// Reads a second port and the folder with `cert.pem` and `key.pem`; `None` where there are none.
///
/// # Panics
/// If there is a second port without a folder, or one that is none.
pub fn tls() -> Option<Tls> {
    let mut arguments = std::env::args().skip(2);
    let port = arguments.next()?;
    let folder = arguments
        .next()
        .expect("behind the port for TLS is a folder");
    let folder = Path::new(&folder);
    Some(Tls {
        port: port
            .parse()
            .expect("the second argument is the port for TLS"),
        certificates: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    })
}

/// The query of `/slow`: how long to wait.
#[derive(Deserialize)]
pub struct Slow {
    /// Milliseconds.
    pub ms: u64,
}

impl Slow {
    /// How long the answer is held back.
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// The query of `/big`: how much to send.
#[derive(Deserialize)]
pub struct Big {
    /// MiB.
    pub mib: u64,
}

async fn ok() -> &'static str {
    "ok"
}

async fn slow(Query(slow): Query<Slow>) -> &'static str {
    tokio::time::sleep(slow.wait()).await;
    "ok"
}

async fn big(Query(big): Query<Big>) -> Response {
    let chunks =
        (0..big.mib * CHUNKS_PER_MIB).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&CHUNK)));
    // The length is declared, so that a client sees a cut answer for what it is.
    (
        [(CONTENT_LENGTH, (big.mib << 20).to_string())],
        Body::from_stream(stream::iter(chunks)),
    )
        .into_response()
}

async fn events() -> Response {
    (
        [(CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(event_stream()),
    )
        .into_response()
}

/// The body of `/events`: an event every 20 ms, without end.
pub fn event_stream() -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold((), |()| async {
        tokio::time::sleep(EVERY).await;
        Some((Ok(Bytes::from_static(EVENT)), ()))
    })
}

/// Events as fast as they are read, so that a client which stops reading is felt.
async fn flood() -> Response {
    let event = Bytes::from(format!("data: {}\n\n", "x".repeat(1000)));
    let events = stream::repeat_with(move || Ok::<_, std::io::Error>(event.clone()));
    (
        [(CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(events),
    )
        .into_response()
}

/// Sends back whatever comes, as axum's documentation does it.
async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

async fn upload(body: Bytes) -> String {
    format!("got {}", body.len())
}
