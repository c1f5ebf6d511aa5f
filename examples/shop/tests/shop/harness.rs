//! Starts the two services, talks to them, and lets clients order until told otherwise.
//!
//! Every process is killed and reaped when its `Service` is dropped. No client sends anything
//! twice: what was acknowledged was acknowledged by one answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shop::Audit;
use sundown_verify::process::{Ended, Process, Spawn};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// No wait takes this long on a machine that is merely slow.
const LIMIT: Duration = Duration::from_secs(60);

/// Which way a shop is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Sundown,
    Naive,
}

/// The URLs of the two databases.
#[derive(Debug, Clone)]
pub(crate) struct Databases {
    pub(crate) orders: String,
    pub(crate) inventory: String,
}

impl Databases {
    /// New SQLite files in a folder of this name.
    pub(crate) fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let url = |file| format!("sqlite:{}", folder.join(file).display());
        Self {
            orders: url("orders.db"),
            inventory: url("inventory.db"),
        }
    }

    pub(crate) async fn audit(&self) -> Audit {
        shop::audit(&self.orders, &self.inventory).await.unwrap()
    }
}

/// A process of one of the services.
pub(crate) struct Service {
    process: Process,
    pub(crate) addr: SocketAddr,
}

impl Service {
    pub(crate) async fn orders(way: Way, databases: &Databases, inventory: SocketAddr) -> Self {
        let inventory = format!("http://{inventory}");
        let args = [
            "orders",
            "--database",
            &databases.orders,
            "--inventory",
            &inventory,
        ];
        Self::start(way, &args, address()).await
    }

    pub(crate) async fn inventory(way: Way, databases: &Databases, addr: SocketAddr) -> Self {
        Self::start(
            way,
            &["inventory", "--database", &databases.inventory],
            addr,
        )
        .await
    }

    /// An order service without an inventory that tells of its phases.
    pub(crate) async fn that_logs(databases: &Databases) -> Self {
        let args = ["orders", "--log", "info", "--database", &databases.orders];
        Self::start(Way::Sundown, &args, address()).await
    }

    /// Both services, which log and hand their spans to a collector.
    pub(crate) async fn both_traced(databases: &Databases, collector: &str) -> [Self; 2] {
        let args = ["inventory", "--database", &databases.inventory];
        let inventory = Self::traced(&args, collector).await;
        let url = format!("http://{}", inventory.addr);
        let args = [
            "orders",
            "--database",
            &databases.orders,
            "--inventory",
            &url,
        ];
        let orders = Self::traced(&args, collector).await;
        [orders, inventory]
    }

    async fn traced(args: &[&str], collector: &str) -> Self {
        let spawn = Self::spawn(args, address()).args(["--log", "info"]);
        let spawn = spawn.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        Self::listening(spawn.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")).await
    }

    async fn start(way: Way, args: &[&str], addr: SocketAddr) -> Self {
        let mut spawn = Self::spawn(args, addr);
        if way == Way::Naive {
            spawn = spawn.arg("--naive");
        }
        Self::listening(spawn).await
    }

    fn spawn(args: &[&str], addr: SocketAddr) -> Spawn {
        let spawn = Spawn::new(env!("CARGO_BIN_EXE_shop")).args(args);
        spawn.arg("--listen").arg(addr.to_string())
    }

    async fn listening(spawn: Spawn) -> Self {
        let mut process = spawn.start().unwrap();
        let ready = process.wait_line("ready, http on ", LIMIT).await;
        let addr = ready.unwrap_or_else(|error| panic!("{error}: {}", process.stderr()));
        let addr = addr.parse().unwrap();
        Self { process, addr }
    }

    pub(crate) fn signal(&mut self, signal: i32) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for the end that a signal must bring.
    pub(crate) async fn ended(&mut self, expected: Ended) {
        let ended = self.end().await;
        assert_eq!(ended, expected, "{}", self.process.stderr());
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> Ended {
        self.process.wait_exit(LIMIT).await.unwrap().ended
    }

    /// All that it says.
    pub(crate) fn says(&self) -> String {
        self.process.stderr()
    }

    /// The lines of its log among what else it says.
    pub(crate) fn log(&self) -> Vec<Value> {
        let stderr = self.process.stderr();
        let lines = stderr.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends SIGTERM and expects a clean end.
    pub(crate) async fn stop(mut self) {
        self.signal(libc::SIGTERM);
        self.ended(Ended::Code(0)).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = ask(&client(), Method::GET, self.addr, path, None)
            .await
            .unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        ask(&client(), Method::POST, self.addr, path, Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        ask(&client(), Method::DELETE, self.addr, path, None)
            .await
            .unwrap()
    }

    /// Waits until inventory has confirmed every event.
    pub(crate) async fn outbox_is_empty(&self) {
        for _ in 0..12_000 {
            if self.get("/outbox").await["pending"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // tidy: a pause between two looks, bounded by the loop
        }
        panic!("the outbox does not get empty: {}", self.process.stderr());
    }
}

/// A loopback address of its own for each call, and any port: a service that was killed finds its
/// port still free, because nothing else looks for one there.
pub(crate) fn address() -> SocketAddr {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let [.., low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 77, low, CALLS.fetch_add(1, Ordering::Relaxed)], 0))
}

type Clients = Client<HttpConnector, Full<Bytes>>;

fn client() -> Clients {
    Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .build_http()
}

async fn ask(
    client: &Clients,
    method: Method,
    addr: SocketAddr,
    path: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), Error> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path}"))
        .header("content-type", "application/json")
        .body(Full::from(
            body.map_or(String::new(), |body| body.to_string()),
        ))
        .unwrap();
    let (head, body) = client.request(request).await?.into_parts();
    // An answer that breaks off acknowledges nothing: the status alone is no promise.
    let body = body
        .collect()
        .await
        .map_or(Bytes::new(), |body| body.to_bytes());
    Ok((
        head.status,
        serde_json::from_slice(&body).unwrap_or(Value::Null),
    ))
}

/// Clients that place orders, and cancel every fifth, until they are told to stop or get no
/// answer.
pub(crate) struct Load {
    clients: JoinSet<Vec<String>>,
    acknowledged: watch::Sender<usize>,
    stop: watch::Sender<bool>,
}

impl Load {
    pub(crate) fn start(orders: SocketAddr) -> Self {
        let (acknowledged, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn(order_on(orders, acknowledged.clone(), stop.subscribe()));
        }
        Self {
            clients,
            acknowledged,
            stop,
        }
    }

    /// Waits until so many orders were acknowledged.
    pub(crate) async fn reaches(&self, orders: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        let reached = acknowledged.wait_for(|count| *count >= orders);
        tokio::time::timeout(LIMIT, reached)
            .await
            .expect("the load gets on")
            .unwrap();
    }

    /// Ends it, and returns the ids of the acknowledged orders.
    pub(crate) async fn end(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.clients.join_all().await.concat()
    }
}

async fn order_on(
    orders: SocketAddr,
    count: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) -> Vec<String> {
    let client = client();
    let mut acknowledged = Vec::new();
    while !*stop.borrow() {
        let id = format!("{:032x}", rand::random::<u128>());
        let order = json!({ "id": id, "item": "tea", "quantity": 1 });
        let placed = ask(&client, Method::POST, orders, "/orders", Some(order)).await;
        let Ok((StatusCode::CREATED, Value::Object(_))) = placed else {
            break;
        };
        acknowledged.push(id);
        count.send_modify(|count| *count += 1);
        if acknowledged.len() % 5 == 0 {
            let path = format!("/orders/{}", acknowledged[acknowledged.len() - 1]);
            if ask(&client, Method::DELETE, orders, &path, None)
                .await
                .is_err()
            {
                break;
            }
        }
    }
    acknowledged
}
