//! The contract's router with a line in a log for each request: eight fields, among them a trace id, some 270 bytes.
//!
//! `peer-logs PORT MODE [FILE]`, where MODE is `none` (nobody hears of the lines), `filtered` (they are below the
//! level that is logged), `sundown` (sundown-telemetry with what it takes out by default) or `tracing-subscriber` (its
//! JSON, by a thread of tracing-appender's that loses none). SIGTERM stops it as Sundown does, and writes what waits.

use std::any::Any;
use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use sundown::App;
use sundown_telemetry::{Logs, WhenFull};
use tracing_appender::non_blocking::NonBlockingBuilder;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(2);
    let mode = arguments.next().expect("behind the port is a mode");
    let mut file = || File::create(arguments.next().expect("behind the mode is a file"));
    let mut app = App::new("peer-logs");
    // What it gives writes what waits when it is dropped.
    let _log: Box<dyn Any> = match mode.as_str() {
        "none" => Box::new(()),
        "filtered" | "sundown" => {
            let logs = Logs::of("peer-logs").writer(file().expect("it can be made"));
            let level = if mode == "filtered" { "warn" } else { "info" };
            let logs = logs.levels(level).expect("it is a level");
            let logs = logs.when_full(WhenFull::Wait);
            let log = Arc::new(logs.init().expect("it is the only one"));
            let flushes = log.clone();
            app = app.last_words(move |within| drop(flushes.flush(within)));
            Box::new(log)
        }
        "tracing-subscriber" => {
            let appender = NonBlockingBuilder::default().lossy(false);
            let (writer, guard) = appender.finish(file().expect("it can be made"));
            let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
            subscriber.with_writer(writer).init();
            Box::new(guard)
        }
        other => panic!("there is no mode {other:?}"),
    };
    let router = peers::router().layer(middleware::from_fn(log));
    app.http(format!("127.0.0.1:{}", peers::port()), router)
        .run()
}

/// Logs a request once it is answered.
async fn log(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    tracing::info!(
        traceId = "0af7651916cd43dd8448eb211c80319c",
        method = method.as_str(),
        path,
        status = response.status().as_u16(),
        duration_us = began.elapsed().as_micros() as u64,
        bytes = 2,
        tenant = "north",
        agent = "curl/8",
        "request"
    );
    response
}
