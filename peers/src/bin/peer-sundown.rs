//! Sundown: `App` with the contract's router, and gRPC's health service beside it.

use std::process::ExitCode;

use sundown::{App, Listener};
use tonic::service::Routes;

fn main() -> ExitCode {
    let port = std::env::args().nth(1).expect("usage: peer-sundown PORT");
    let (reporter, health) = tonic_health::server::health_reporter();
    let router = peers::router().merge(Routes::new(health).into_axum_router());
    let listener = Listener::http(format!("127.0.0.1:{port}"), router);
    App::new("peer-sundown")
        .grpc_health(reporter, [""])
        .listener(listener)
        .run()
}
