//! Sundown: `App` with the contract's router and gRPC's health service beside it; with a second port and a
//! folder with `cert.pem` and `key.pem`, the same under TLS.

use std::process::ExitCode;

use axum::Router;
use sundown::{App, Listener, Tls};
use tonic::service::Routes;

fn main() -> ExitCode {
    let (reporter, health) = tonic_health::server::health_reporter();
    let router = peers::router().merge(Routes::new(health).into_axum_router());
    let app = App::new("peer-sundown")
        .grpc_health(reporter, [""])
        .listener(listener(peers::port(), router.clone()));
    let app = match peers::tls() {
        None => app,
        Some(peers::Tls {
            port,
            certificates,
            key,
        }) => {
            let tls = Tls::files(certificates, key);
            app.listener(listener(port, router).name("https").tls(tls))
        }
    };
    app.run()
}

fn listener(port: u16, router: Router) -> Listener {
    Listener::http(format!("127.0.0.1:{port}"), router)
}
