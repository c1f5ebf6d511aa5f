//! actix-web, which stops gracefully at SIGTERM by itself, within 30 seconds.

use actix_web::web::{self, Bytes, Query};
use actix_web::{App, HttpResponse, HttpServer};
use futures_util::stream;
use peers::{Big, CHUNK, CHUNKS_PER_MIB, Slow};

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    HttpServer::new(|| {
        App::new()
            .app_data(web::PayloadConfig::new(usize::MAX))
            .route("/", web::get().to(ok))
            .route("/fast", web::get().to(ok))
            .route("/slow", web::get().to(slow))
            .route("/big", web::get().to(big))
            .route("/events", web::get().to(events))
            .route("/upload", web::post().to(upload))
    })
    .bind(("127.0.0.1", peers::port()))?
    .run()
    .await
}

async fn ok() -> &'static str {
    "ok"
}

async fn slow(slow: Query<Slow>) -> &'static str {
    tokio::time::sleep(slow.wait()).await;
    "ok"
}

async fn big(big: Query<Big>) -> HttpResponse {
    let chunks =
        (0..big.mib * CHUNKS_PER_MIB).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&CHUNK)));
    HttpResponse::Ok()
        .no_chunking(big.mib << 20)
        .streaming(stream::iter(chunks))
}

async fn events() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .streaming(peers::event_stream())
}

async fn upload(body: Bytes) -> String {
    format!("got {}", body.len())
}
