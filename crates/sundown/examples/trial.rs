//! A service with every way to be difficult, for the tests: `trial [MODE]`.
//!
//! It listens on a free port and says so on stderr. Each mode adds one difficulty.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, Query};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use sundown::{App, BoxError, Check, Context, Hook, Listener, OnDeath, Traffic, Worker};

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let app = App::new("trial");
    let handle = app.handle();
    let restarts = app.handle();
    let app = match mode.as_str() {
        "" => app,
        "restarts-otherwise" => app.restart_signal(Some(libc::SIGALRM)),
        "never-starts" => app.on_start("never", std::future::pending::<()>),
        "fails-to-start" => app
            .hook(Hook::on_start("first", || async {
                eprintln!("started first")
            }))
            .hook(Hook::on_start("second", || async {
                Err::<(), _>("no second")
            }))
            .post_cleanup("first", || async { eprintln!("released first") })
            .post_cleanup("second", || async { eprintln!("released second") }),
        "releases" => app
            .post_cleanup("oldest", || async { eprintln!("released oldest") })
            .post_cleanup("panics", || async { release_badly() })
            .hook(
                Hook::post_cleanup("last", || async { eprintln!("released last") }).after("oldest"),
            )
            .pre_shutdown("deregister", || async { eprintln!("deregistered") }),
        "worker-dies" => app.add_worker(
            Worker::new("mortal", |_| async { Err("out of luck".into()) })
                .on_death(OnDeath::StopService),
        ),
        "worker-restarts" => {
            let mut lives = 0;
            app.worker("stubborn", move |ctx| {
                lives += 1;
                eprintln!("life {lives}");
                let first = lives == 1;
                async move {
                    assert!(!first, "the first life ends early");
                    ctx.draining().await;
                    Ok(())
                }
            })
        }
        "worker-never-ends" => app.worker("endless", |_| std::future::pending()),
        "workers-only" => {
            return App::new("trial")
                .worker("one", |_| done("one"))
                .worker("two", |_| done("two"))
                .run();
        }
        "nothing" => return App::new("trial").run(),
        "stops-itself" => app.worker("suicidal", move |_| {
            handle.shutdown("enough");
            std::future::ready(Ok::<(), BoxError>(()))
        }),
        "two-of-a-name" => app.http("127.0.0.1:0", router()),
        "depends" => app.check(
            Check::new("broker", || async {
                fs::metadata(file("broker")).map(drop)
            })
            .every(Duration::from_millis(10)),
        ),
        "measured" => app
            .on_start("warm", || async {})
            .check(Check::new("always", || async { Ok::<(), BoxError>(()) }))
            .metrics(|| {
                String::from("# HELP sold Items.\n# TYPE sold counter\nsold_total 7\n# EOF\n")
            }),
        "follows" => app
            .on_start("follow", follow)
            .pre_shutdown("deregister", || async { eprintln!("deregistered") })
            .post_cleanup("follow", || async { eprintln!("released") }),
        "releases-slowly" => app.post_cleanup("store", || while_there("store")),
        "stays" | "proxied" | "tls" | "tls-clients" | "tls-anybody" | "tls-proxied" => app,
        other => {
            eprintln!("no such mode: {other}");
            return ExitCode::from(2);
        }
    };
    let address = std::env::var("TRIAL_ADDRESS").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let router = router().route(
        "/restart",
        routing::post(async move || {
            restarts.restart();
            "told"
        }),
    );
    let listener = Listener::http(address, router)
        .head_timeout(Duration::from_millis(300))
        .connect_info()
        .event_retry(Duration::from_millis(1500))
        .body_limit(Some(1 << 20));
    let listener = match mode.as_str() {
        "proxied" => listener.proxy_protocol(),
        #[cfg(feature = "tls")]
        "tls" => listener.tls(tls()),
        #[cfg(feature = "tls")]
        "tls-proxied" => listener.proxy_protocol().tls(tls()),
        #[cfg(feature = "tls")]
        "tls-anybody" => listener.tls(tls().allow_clients(file("clients.pem"))),
        #[cfg(feature = "tls")]
        "tls-clients" => listener.tls(tls().require_clients(file("clients.pem"))),
        "stays" => listener
            .stay(Traffic::Records, Duration::MAX)
            .stay(Traffic::WebSocket, Duration::MAX)
            .stay(Traffic::Stream, Duration::ZERO),
        _ => listener,
    };
    app.listener(listener).run()
}

#[cfg(feature = "tls")]
fn tls() -> sundown::Tls {
    sundown::Tls::files(file("cert.pem"), file("key.pem"))
}

/// A file in the folder that the test has made.
fn file(name: &str) -> PathBuf {
    let folder = std::env::var_os("TRIAL_FOLDER").expect("TRIAL_FOLDER is set");
    Path::new(&folder).join(name)
}

/// Starts as the test's file says: a successor starts behind one that has not said anything.
async fn follow() -> Result<(), BoxError> {
    match fs::read_to_string(file("start")).unwrap_or_default().trim() {
        "fail" => Err("told to fail".into()),
        "hang" => std::future::pending().await,
        "die" => std::process::abort(),
        _ => Ok(()),
    }
}

async fn done(name: &str) -> Result<(), BoxError> {
    eprintln!("{name} is done");
    Ok(())
}

fn release_badly() {
    panic!("released badly")
}

#[derive(Deserialize)]
struct Pause {
    ms: u64,
}

fn router() -> Router {
    Router::new()
        .route("/", routing::get(|| async { "ok" }))
        .route("/held", routing::get(held))
        .route("/pid", routing::get(pid))
        .route("/slow", routing::get(slow))
        .route("/never", routing::get(std::future::pending::<()>))
        .route("/patient", routing::get(patient))
        .route("/panic", routing::get(panics))
        .route("/spin", routing::get(spin))
        .route("/block", routing::get(block))
        .route("/task", routing::get(task))
        .route("/guard", routing::get(guard))
        .route("/left", routing::get(left))
        .route("/peer", routing::get(peer))
        .merge(of_tls())
        .route("/ws", routing::get(echo))
        .route("/feed", routing::get(feed))
        .route("/events", routing::get(events))
        .route("/events/quiet", routing::get(quiet_events))
        .route("/lines", routing::get(lines))
        .route("/drip", routing::get(drip))
        .route(
            "/upload",
            routing::post(|body: Bytes| async move { format!("got {}", body.len()) }),
        )
}

/// Waits until the test lets it go.
async fn while_there(name: &str) {
    while fs::metadata(file(name)).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn held() -> &'static str {
    eprintln!("held");
    while_there("held").await;
    "ok"
}

async fn pid() -> String {
    std::process::id().to_string()
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
        eprintln!("echo ended");
    })
}

/// Sends messages of many lengths, some in several frames, and reads nothing.
async fn feed(upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.write_buffer_size(0);
    upgrade.on_upgrade(|mut socket| async move {
        for length in (0..100_000).step_by(977).cycle() {
            if socket.send(vec![b'f'; length].into()).await.is_err() {
                break;
            }
        }
        eprintln!("feed ended");
    })
}

/// Server-sent events, in pieces that are none.
async fn events() -> Response {
    endless(
        "text/event-stream",
        &[
            "data: be",
            "gun\n",
            "id: 1\n\n",
            "data: a\n\ndata: b",
            "\n\n",
        ],
    )
}

/// One event, and then nothing.
async fn quiet_events() -> impl IntoResponse {
    let first = stream::iter([Ok::<_, BoxError>(Event::default().data("first"))]);
    Sse::new(first.chain(stream::pending()))
}

/// A record a line, in pieces.
async fn lines() -> Response {
    endless("application/x-ndjson", &["{\"a\"", ":1}\n{\"b\"", ":2}\n"])
}

/// A body of which nobody knows where it may end.
async fn drip() -> Response {
    endless("text/plain", &["drip "])
}

/// The same pieces over and over again.
fn endless(content_type: &'static str, pieces: &'static [&'static str]) -> Response {
    let pieces = stream::iter(pieces.iter().copied().cycle()).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, BoxError>(piece)
    });
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
}

async fn slow(Query(Pause { ms }): Query<Pause>) -> &'static str {
    eprintln!("slow began");
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "ok"
}

async fn patient(ctx: Context) -> (StatusCode, String) {
    eprintln!("patient began");
    let why = ctx.cancelled().await;
    eprintln!("patient heard: {why}");
    (StatusCode::SERVICE_UNAVAILABLE, why.to_string())
}

async fn panics() {
    panic!("a handler's panic")
}

async fn spin() {
    eprintln!("spin began");
    loop {
        std::hint::spin_loop();
    }
}

async fn block(ctx: Context) -> &'static str {
    ctx.spawn_blocking("endless computation", || {
        loop {
            std::thread::park();
        }
    });
    "ok"
}

async fn task(ctx: Context) -> &'static str {
    let of_task = ctx.clone();
    ctx.spawn("afterthought", async move {
        of_task.draining().await;
        eprintln!("afterthought finished");
    });
    "ok"
}

async fn guard(ctx: Context) -> &'static str {
    let guard = ctx.guard("import");
    std::thread::spawn(move || {
        let _guard = guard;
        loop {
            std::thread::park();
        }
    });
    "ok"
}

async fn left(ctx: Context) -> String {
    ctx.remaining().map_or_else(
        || "for ever".to_owned(),
        |left| format!("{} ms", left.as_millis()),
    )
}

/// Says who the client is, by its certificate.
#[cfg(feature = "tls")]
fn of_tls() -> Router {
    use axum::Extension;
    use sundown::ClientCertificates;
    let shown = async |Extension(shown): Extension<ClientCertificates>| {
        format!("{} bytes", shown.end_entity().len())
    };
    Router::new().route("/client", routing::get(shown))
}

#[cfg(not(feature = "tls"))]
fn of_tls() -> Router {
    Router::new()
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
    peer.to_string()
}
