//! hyper's HTTP/1 server without any stop: the baseline for memory and throughput.
//!
//! SIGTERM ends it as the kernel's default does, with whatever is in flight.

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", peers::port())).await?;
    let router = peers::router();
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A client that goes away is no concern of the server's.
        tokio::spawn(async move { drop(connection.await) });
    }
}
