//! axum-server, stopped as its example `graceful_shutdown` does it; with a second port and a folder with
//! `cert.pem` and `key.pem`, the same under TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Control, Handle};
use tokio::signal;
use tokio::signal::unix::SignalKind;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let control = Control::new();
    tokio::spawn(stop_when_asked(control.clone()));
    let router = peers::router().into_make_service();
    let plain = axum_server::bind(address(peers::port()))
        .handle(Handle::with_control(control.clone()))
        .serve(router.clone());
    let Some(tls) = peers::tls() else {
        return plain.await;
    };
    let config = RustlsConfig::from_pem_file(tls.certificates, tls.key).await?;
    let under_tls = axum_server::bind_rustls(address(tls.port), config)
        .handle(Handle::with_control(control))
        .serve(router);
    tokio::try_join!(plain, under_tls).map(drop)
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn stop_when_asked(control: Control) {
    let mut terminate =
        signal::unix::signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    control.graceful_shutdown(Some(Duration::from_secs(30)));
}
