//! axum, stopped as its `graceful-shutdown` example does it.

use tokio::net::TcpListener;
use tokio::signal;
use tokio::signal::unix::SignalKind;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", peers::port())).await?;
    axum::serve(listener, peers::router())
        .with_graceful_shutdown(asked_to_stop())
        .await
}

async fn asked_to_stop() {
    let mut terminate =
        signal::unix::signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
