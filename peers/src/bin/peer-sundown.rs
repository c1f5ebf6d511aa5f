//! Sundown: `App` with the contract's router and gRPC's health service beside it; with a second port and a
//! folder with `cert.pem` and `key.pem`, the same under TLS.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use sundown::{App, Listener, Tls};
use tonic::service::Routes;

const USAGE: &str = "usage: peer-sundown PORT [TLS-PORT FOLDER]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (reporter, health) = tonic_health::server::health_reporter();
    let router = peers::router().merge(Routes::new(health).into_axum_router());
    let listener = |port: &str, router: Router| Listener::http(format!("127.0.0.1:{port}"), router);
    let app = App::new("peer-sundown").grpc_health(reporter, [""]);
    let app = match arguments.as_slice() {
        [port] => app.listener(listener(port, router)),
        [port, tls_port, folder] => {
            let file = |name: &str| PathBuf::from(folder).join(name);
            let tls = Tls::files(file("cert.pem"), file("key.pem"));
            app.listener(listener(port, router.clone()))
                .listener(listener(tls_port, router).name("https").tls(tls))
        }
        _ => panic!("{USAGE}"),
    };
    app.run()
}
