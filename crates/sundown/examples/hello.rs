//! The smallest service that stops without losing a request.
//!
//! `cargo run --example hello`, then `curl localhost:8080`, then Ctrl-C.

use std::process::ExitCode;
use std::time::Duration;

use axum::{Router, routing::get};
use sundown::App;

fn main() -> ExitCode {
    let router = Router::new().route("/", get(|| async { "ok" }));
    App::new("hello")
        .grace(Duration::from_secs(25))
        .http("127.0.0.1:8080", router)
        .run()
}
