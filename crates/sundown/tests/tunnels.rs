//! Streams of HTTP/2 that go on as something else: tunnels by CONNECT, and WebSockets (RFC 8441).

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use hyper_util::rt::TokioIo;
use sundown::{App, Context, ExitStatus, Handle, Listener, Report};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Served {
    handle: Handle,
    running: JoinHandle<Report>,
}

impl Served {
    async fn start(listener: Listener) -> Self {
        let app = App::new("tunnels").grace(Duration::from_secs(1));
        let app = app.listener(listener);
        let handle = app.handle();
        let running = tokio::spawn(async move { app.serve().await.unwrap() });
        handle.ready().await;
        Self { handle, running }
    }

    async fn connect(&self) -> Client {
        let address = self.handle.address("http").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let mut client = Client {
            send: send.ready().await.unwrap(),
            connection: tokio::spawn(async { connection.await.is_ok() }),
        };
        // Behind an answer the server's settings are known.
        let request = Request::get("http://trial/").body(()).unwrap();
        let (answer, _) = client.send.send_request(request, true).unwrap();
        answer.await.unwrap();
        client
    }

    async fn stop(self) -> Report {
        self.handle.shutdown("the test");
        self.running.await.unwrap()
    }
}

struct Client {
    send: h2::client::SendRequest<Bytes>,
    /// Whether it ended in order.
    connection: JoinHandle<bool>,
}

impl Client {
    /// Opens a stream that goes on.
    async fn open(&mut self, protocol: Option<&'static str>, uri: &str) -> Tunnel {
        let mut request = Request::connect(uri);
        if let Some(protocol) = protocol {
            request = request
                .extension(Protocol::from_static(protocol))
                .header("sec-websocket-version", "13");
        }
        let request = request.body(()).unwrap();
        let (answer, send) = self.send.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let receive = answer.into_body();
        Tunnel { send, receive }
    }
}

struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

impl Tunnel {
    fn send(&mut self, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        self.send.send_data(bytes, false).unwrap();
    }

    async fn read(&mut self, bytes: &mut Vec<u8>) -> Option<Result<(), h2::Error>> {
        let data = self.receive.data().await?;
        Some(data.map(|data| bytes.extend(data)))
    }

    async fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut bytes = Vec::new();
        while let Some(read) = self.read(&mut bytes).await {
            read?;
        }
        Ok(bytes)
    }
}

/// Leads nowhere but back, until the service drains.
async fn tunnel(request: Request) -> StatusCode {
    if request.method() != Method::CONNECT {
        return StatusCode::NOT_FOUND;
    }
    let ctx = Context::current().unwrap();
    ctx.clone().spawn("tunnel", async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let mut io = TokioIo::new(upgraded);
        let mut bytes = [0; 64];
        loop {
            tokio::select! {
                count = io.read(&mut bytes) => match count.unwrap() {
                    0 => break,
                    count => io.write_all(&bytes[..count]).await.unwrap(),
                },
                () = ctx.draining() => {
                    io.write_all(b"bye").await.unwrap();
                    break;
                }
            }
        }
        let _ = io.shutdown().await;
    });
    StatusCode::OK
}

#[tokio::test]
async fn a_tunnel_over_http2_is_told_and_awaited() {
    let router = Router::new().fallback(tunnel);
    let served = Served::start(Listener::http("127.0.0.1:0", router)).await;
    let mut client = served.connect().await;
    let mut tunnel = client.open(None, "elsewhere:443").await;
    tunnel.send(b"hello");
    let mut seen = Vec::new();
    tunnel.read(&mut seen).await.unwrap().unwrap();
    assert_eq!(seen, b"hello");

    let reading = tokio::spawn(async move { tunnel.rest().await });
    let report = served.stop().await;
    assert_eq!(reading.await.unwrap().unwrap(), b"bye");
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
    drop(client.send);
    assert!(client.connection.await.unwrap());
}

#[tokio::test]
async fn a_tunnel_over_http2_that_stays_is_cut_off_by_where_it_leads() {
    let never = |request: Request| async move {
        if request.method() != Method::CONNECT {
            return StatusCode::NOT_FOUND;
        }
        tokio::spawn(async move {
            let _upgraded = hyper::upgrade::on(request).await;
            std::future::pending::<()>().await;
        });
        StatusCode::OK
    };
    let router = Router::new().fallback(never);
    let served = Served::start(Listener::http("127.0.0.1:0", router)).await;
    let mut client = served.connect().await;
    let mut tunnel = client.open(None, "elsewhere:443").await;
    // Another request is answered meanwhile, and its end is not that of the tunnel.
    client.open(None, "other:443").await.send(b"");

    let report = served.stop().await;
    assert_eq!(report.exit_status(), ExitStatus::CutOff, "{report}");
    let cut = report.cut_off[0].to_string();
    assert!(cut.starts_with("upgraded connection CONNECT "), "{cut}");
    tunnel.rest().await.unwrap_err();
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

#[tokio::test]
async fn a_websocket_over_http2_that_stays_is_reset_and_named() {
    let router = || Router::new().route("/ws", any(echo));
    let served = Served::start(Listener::http("127.0.0.1:0", router())).await;
    let client = served.connect().await;
    assert!(!client.send.is_extended_connect_protocol_enabled());
    drop(client);
    served.stop().await;

    let listener = Listener::http("127.0.0.1:0", router()).http2_websockets();
    let served = Served::start(listener).await;
    let mut client = served.connect().await;
    assert!(client.send.is_extended_connect_protocol_enabled());
    let mut socket = client.open(Some("websocket"), "http://trial/ws").await;
    // A text of two letters, masked by zeros (RFC 6455 §5.2).
    socket.send(b"\x81\x82\0\0\0\0hi");
    let mut echoed = Vec::new();
    while echoed.len() < 4 {
        socket.read(&mut echoed).await.unwrap().unwrap();
    }
    assert_eq!(echoed, b"\x81\x02hi");

    let report = served.stop().await;
    assert_eq!(report.exit_status(), ExitStatus::CutOff, "{report}");
    let cut = report.cut_off[0].to_string();
    assert!(cut.starts_with("upgraded connection CONNECT /ws"), "{cut}");
    socket.rest().await.unwrap_err();
}
