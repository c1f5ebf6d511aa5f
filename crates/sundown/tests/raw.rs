//! Protocols of the application's own over a stop: raw connections, and tunnels by CONNECT.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use hyper_util::rt::TokioIo;
use sundown::{App, Connection, Context, ExitStatus, Handle, Report};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Served {
    handle: Handle,
    running: JoinHandle<Report>,
}

impl Served {
    async fn start(app: App) -> Self {
        let app = app.grace(Duration::from_secs(1));
        let handle = app.handle();
        let running = tokio::spawn(async move { app.serve().await.unwrap() });
        handle.ready().await;
        Self { handle, running }
    }

    async fn connect(&self, listener: &str) -> TcpStream {
        let address = self.handle.address(listener).unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    async fn stop(self) -> Report {
        self.handle.shutdown("the test");
        self.running.await.unwrap()
    }
}

async fn rest_of(mut client: TcpStream) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    rest
}

/// Echoes until the service drains, and then says so.
async fn echo(mut connection: Connection, ctx: Context) -> Result<(), sundown::BoxError> {
    let mut bytes = [0; 64];
    loop {
        tokio::select! {
            count = connection.read(&mut bytes) => match count? {
                0 => return Ok(()),
                count => connection.write_all(&bytes[..count]).await?,
            },
            () = ctx.draining() => break,
        }
    }
    connection.write_all(b"bye").await?;
    Ok(connection.shutdown().await?)
}

#[tokio::test]
async fn a_raw_connection_is_told_and_awaited() {
    let served = Served::start(App::new("raw").tcp("127.0.0.1:0", echo)).await;
    let mut client = served.connect("tcp").await;
    client.write_all(b"hello").await.unwrap();
    let mut seen = [0; 5];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"hello");

    let reading = tokio::spawn(rest_of(client));
    let report = served.stop().await;
    assert_eq!(reading.await.unwrap(), "bye");
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
    assert_eq!(report.connections.ended, 1);
}

#[tokio::test]
async fn a_raw_connection_that_stays_is_cut_off_by_its_listeners_name() {
    let deaf = |mut connection: Connection, _| async move {
        connection.write_all(b"!").await?;
        std::future::pending().await
    };
    let served = Served::start(App::new("raw").tcp("127.0.0.1:0", deaf)).await;
    let mut client = served.connect("tcp").await;
    client.read_exact(&mut [0; 1]).await.unwrap();
    let address = client.local_addr().unwrap();

    let report = served.stop().await;
    assert_eq!(report.exit_status(), ExitStatus::CutOff);
    let cut = &report.cut_off[0];
    assert_eq!(cut.name, "tcp");
    assert_eq!(cut.peer, Some(address));
    assert!(cut.to_string().starts_with("connection tcp from"), "{cut}");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// Leads nowhere but back.
async fn tunnel(request: Request) -> StatusCode {
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
async fn a_tunnel_is_told_and_awaited() {
    let router = Router::new().fallback(tunnel);
    let served = Served::start(App::new("proxy").http("127.0.0.1:0", router)).await;
    let mut client = served.connect("http").await;
    let connect = b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\n";
    client.write_all(connect).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    client.write_all(b"hello").await.unwrap();
    let mut seen = [0; 5];
    client.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"hello");

    let reading = tokio::spawn(rest_of(client));
    let report = served.stop().await;
    assert_eq!(reading.await.unwrap(), "bye");
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
}

#[tokio::test]
async fn a_tunnel_that_stays_is_cut_off_by_where_it_leads() {
    let never = |request: Request| async move {
        tokio::spawn(async move {
            let _upgraded = hyper::upgrade::on(request).await;
            std::future::pending::<()>().await;
        });
        StatusCode::OK
    };
    let router = Router::new().fallback(never);
    let served = Served::start(App::new("proxy").http("127.0.0.1:0", router)).await;
    let mut client = served.connect("http").await;
    let connect = b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\n";
    client.write_all(connect).await.unwrap();
    client.read_exact(&mut [0; 12]).await.unwrap();

    let report = served.stop().await;
    assert_eq!(report.exit_status(), ExitStatus::CutOff);
    let cut = report.cut_off[0].to_string();
    assert!(
        cut.starts_with("upgraded connection CONNECT elsewhere:443"),
        "{cut}"
    );
}
