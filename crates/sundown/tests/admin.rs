//! The listener for those who run a service: it follows the service's life, and ends after it.

mod trial;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sundown_testkit::metrics::{documented, families};
use sundown_verify::process::Spawn;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use trial::{Client, LIMIT, Trial, get, run, spawn};

/// How often a server is asked that tells nobody of a change.
const STEP: Duration = Duration::from_millis(5);

const SECRET: &str = "0123456789abcdef";

/// A trial, and where its admin listener is.
struct Run {
    trial: Trial,
    admin: SocketAddr,
}

impl Run {
    async fn of(spawn: Spawn) -> Self {
        let mut process = spawn.env("SUNDOWN_ADMIN", ":0").start().unwrap();
        let admin = process.wait_line("admin on ", LIMIT).await.unwrap();
        let address = process.wait_line("http on ", LIMIT).await.unwrap();
        let run = Self {
            trial: Trial {
                process,
                address: address.parse().unwrap(),
            },
            admin: admin.parse().unwrap(),
        };
        // It is a moment from listening to being ready.
        run.until("GET /lifecycle", (200, r#""phase":"ready""#))
            .await;
        run
    }

    /// Asks on a connection of its own; returns status and body.
    async fn ask(&self, request: &str) -> (u16, String) {
        ask(self.admin, request).await
    }

    async fn status(&self) -> Value {
        let (code, body) = self.ask("GET /lifecycle").await;
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }

    async fn until(&self, request: &str, expected: (u16, &str)) {
        until(self.admin, request, expected).await;
    }
}

/// Asks until the answer is this: what it tells of happens elsewhere.
async fn until(address: SocketAddr, request: &str, expected: (u16, &str)) {
    loop {
        let (code, body) = ask(address, request).await;
        if code == expected.0 && body.contains(expected.1) {
            return;
        }
        tokio::time::sleep(STEP).await; // tidy: what changed tells nobody
    }
}

/// Sends a request line with further headers behind `\n`.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut lines = request.lines();
    let line = lines.next().unwrap();
    let mut text = format!("{line} HTTP/1.1\r\nhost: {address}\r\n");
    for line in lines {
        text.push_str(&format!("{line}\r\n"));
    }
    let mut client = Client::to(address).await;
    client.send(&(text + "\r\n")).await;
    let (head, body) = client.answer().await;
    (head[9..12].parse().unwrap(), body)
}

#[tokio::test]
async fn probes_and_lifecycle_follow_a_stop_from_its_first_phase_to_its_last_release() {
    let folder = TempDir::new().unwrap();
    let gate = folder.path().join("store");
    fs::write(&gate, "").unwrap();
    let mode = spawn("releases-slowly").env("TRIAL_FOLDER", folder.path());
    let mut run = Run::of(mode).await;
    assert_eq!(run.ask("GET /livez").await, (200, "alive\n".into()));
    assert_eq!(run.ask("GET /readyz").await, (200, "ready\n".into()));
    let status = run.status().await;
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["budget"]["left_ms"], status["budget"]["grace_ms"]);

    let mut slow = run.trial.ask("/slow?ms=1000").await;
    run.trial.says("slow began").await;
    run.trial.signal(libc::SIGTERM);
    run.until("GET /readyz", (503, "not ready: draining")).await;
    assert_eq!(run.ask("GET /livez").await.0, 200);
    let status = run.status().await;
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&"draining".into(), &"SIGTERM".into())
    );
    let open = &status["open"][0];
    assert_eq!(
        (&open["name"], &open["count"]),
        (&"GET /slow".into(), &1.into())
    );
    let peer = slow.stream.local_addr().unwrap().to_string();
    assert_eq!(open["oldest"][0]["peer"], peer.as_str());
    assert!(open["oldest"][0]["age_ms"].as_f64().unwrap() > 0.0);
    let left = |status: &Value| status["budget"]["left_ms"].as_f64().unwrap();
    assert!(left(&status) < status["budget"]["grace_ms"].as_f64().unwrap());
    assert_eq!(slow.answer().await.1, "ok");

    run.until("GET /readyz", (503, "not ready: releasing"))
        .await;
    let status = run.status().await;
    assert_eq!(status["running_hook"]["name"], "store");
    let phases: Vec<_> = status["phases"].as_array().unwrap().iter().collect();
    let phases: Vec<_> = phases
        .iter()
        .map(|part| part["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        phases,
        ["starting", "ready", "lame_duck", "draining", "releasing"]
    );
    fs::remove_file(&gate).unwrap();
    assert_eq!(run.trial.exit().await.0, 0);
}

#[tokio::test]
async fn it_is_open_before_the_service_has_started() {
    let mut process = spawn("never-starts")
        .env("SUNDOWN_ADMIN", ":0")
        .start()
        .unwrap();
    let admin = process.wait_line("admin on ", LIMIT).await.unwrap();
    let admin: SocketAddr = admin.parse().unwrap();
    assert!(admin.ip().is_loopback());
    assert_eq!(
        ask(admin, "GET /readyz").await,
        (503, "not ready: starting\n".into())
    );
    let (_, body) = ask(admin, "GET /lifecycle").await;
    assert!(body.contains(r#""running_hook":{"name":"never""#), "{body}");
    process.signal(libc::SIGTERM).unwrap();
    process.wait_exit(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_check_turns_readiness_off_and_on_again_while_the_service_runs() {
    let folder = TempDir::new().unwrap();
    let broker = folder.path().join("broker");
    let mut run = Run::of(spawn("depends").env("TRIAL_FOLDER", folder.path())).await;
    run.until("GET /readyz", (503, "broker: down for 0s: No such file"))
        .await;
    run.trial.says("not ready: broker: No such file").await;
    fs::write(&broker, "").unwrap();
    run.until("GET /readyz", (200, "broker: up")).await;
    run.trial.says("broker is there again").await;
    assert_eq!(run.status().await["checks"][0]["standing"], "up");
    fs::remove_file(&broker).unwrap();
    run.until("GET /readyz", (503, "broker: down")).await;
    run.until(
        "GET /metrics",
        (200, "sundown_check_up{check=\"broker\"} 0"),
    )
    .await;
    assert_eq!(run.trial.ask("/").await.answer().await.1, "ok");
    assert_eq!(run.trial.stop().await.0, 0);
}

#[tokio::test]
async fn metrics_count_what_the_service_did() {
    let run = Run::of(spawn("")).await;
    let mut client = run.trial.connect().await;
    for _ in 0..3 {
        client.send(&get("/")).await;
        client.answer().await;
    }
    let mut slow = run.trial.ask("/slow?ms=200").await;
    run.until(
        "GET /metrics",
        (200, "sundown_in_flight{work=\"request\"} 1"),
    )
    .await;
    slow.answer().await;
    run.until(
        "GET /metrics",
        (200, "sundown_requests_total{outcome=\"finished\"} 4"),
    )
    .await;
    let open_metrics = "GET /metrics\naccept: application/openmetrics-text; version=1.0.0, */*";
    let (_, text) = run.ask(open_metrics).await;
    for line in [
        "sundown_ready 1.0",
        "sundown_phase{phase=\"ready\"} 1.0",
        "sundown_phase{phase=\"draining\"} 0.0",
        "sundown_drain_seconds 0.0",
        "sundown_budget_left_seconds 25.0",
        "sundown_connections_accepted_total 2",
        "sundown_open_connections 2.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }
    assert_eq!(run.trial.stop().await.0, 0);
}

#[tokio::test]
async fn every_metric_is_documented_and_what_is_the_services_own_comes_last() {
    let run = Run::of(spawn("measured")).await;
    let mut slow = run.trial.ask("/slow?ms=200").await;
    run.until("GET /metrics", (200, "sundown_in_flight")).await;
    let (_, text) = run.ask("GET /metrics").await;
    slow.answer().await;
    let (of_sundown, own) = text.split_at(text.find("# HELP sold").unwrap());
    assert_eq!(
        own,
        "# HELP sold_total Items.\n# TYPE sold_total counter\nsold_total 7\n"
    );
    let page = include_str!("../../../docs/metrics.md");
    let (of_life, _) = page.split_once("\n## Requests\n").unwrap();
    assert_eq!(families(of_sundown), documented(of_life));
    assert_eq!(run.trial.stop().await.0, 0);
}

#[tokio::test]
async fn who_watches_sees_each_change_until_the_end_and_holds_nothing_up() {
    let mut run = Run::of(spawn("").env("SUNDOWN_REPORT", "-")).await;
    let watch = get("/lifecycle").replace(
        "host: trial",
        "host: localhost\r\naccept: text/event-stream",
    );
    let mut watcher = Client::to(run.admin).await;
    watcher.send(&watch).await;
    let mut seen = String::new();
    while !seen.contains("data: ") {
        let mut bytes = [0; 4096];
        let length = watcher.stream.read(&mut bytes).await.unwrap();
        seen.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    // One that never reads, and one that never asks.
    let mut deaf = Client::to(run.admin).await;
    deaf.send(&watch).await;
    let _mute = Client::to(run.admin).await;
    assert_eq!(run.ask("GET /livez").await.0, 200);
    run.trial.signal(libc::SIGTERM);
    let (code, told) = run.trial.exit().await;
    assert_eq!(code, 0, "{told}");
    let report: Value = serde_json::from_str(run.trial.process.stdout().trim()).unwrap();
    assert_eq!(
        report["connections"]["accepted"], 0,
        "none of them is the service's"
    );

    seen.push_str(&watcher.rest().await.unwrap());
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(seen.ends_with("\r\n0\r\n\r\n"), "{seen}");
    let events = seen.split("data: ").skip(1);
    let events = events.map(|event| event.split("\n\n").next().unwrap());
    let phases: Vec<String> = events
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .map(|event| event["phase"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(phases.first().unwrap(), "ready");
    assert_eq!(phases.last().unwrap(), "releasing");
}

#[tokio::test]
async fn the_service_is_stopped_by_a_post_and_by_nothing_less() {
    let mut run = Run::of(spawn("")).await;
    assert_eq!(run.ask("GET /shutdown").await.0, 405);
    assert_eq!(run.ask("POST /livez").await.0, 405);
    assert_eq!(run.ask("GET /nothing").await.0, 404);
    let evil = "POST /shutdown\norigin: https://evil.example";
    assert_eq!(run.ask(evil).await.0, 403);
    assert_eq!(run.status().await["phase"], "ready");
    let post = "POST /shutdown?reason=deploy+42\ncontent-length: 0";
    assert_eq!(run.ask(post).await, (202, "stopping\n".into()));
    let (code, told) = run.trial.exit().await;
    assert_eq!(code, 0);
    assert!(
        told.contains("POST /shutdown: deploy 42: stopping"),
        "{told}"
    );
}

#[tokio::test]
async fn where_others_can_connect_a_token_is_wanted() {
    let anywhere = || spawn("").env("SUNDOWN_ADMIN", "0.0.0.0:0");
    let (code, told) = run(anywhere()).await;
    assert_eq!(code, 2);
    assert!(told.contains("SUNDOWN_ADMIN_TOKEN"), "{told}");
    let (code, told) = run(anywhere().env("SUNDOWN_ADMIN_TOKEN", "short")).await;
    assert_eq!(code, 2);
    assert!(told.contains("at least 16"), "{told}");
    assert!(!told.contains("short"), "{told}");

    let mut process = anywhere()
        .env("SUNDOWN_ADMIN_TOKEN", SECRET)
        .start()
        .unwrap();
    let admin = process.wait_line("admin on 0.0.0.0:", LIMIT).await.unwrap();
    let admin = SocketAddr::from(([127, 0, 0, 1], admin.parse().unwrap()));
    until(admin, "GET /readyz", (200, "ready")).await;
    for path in ["/livez", "/"] {
        assert_eq!(ask(admin, &format!("GET {path}")).await.0, 200, "{path}");
    }
    for path in ["/metrics", "/lifecycle", "/nothing"] {
        assert_eq!(ask(admin, &format!("GET {path}")).await.0, 401, "{path}");
    }
    assert_eq!(ask(admin, "POST /shutdown").await.0, 401);
    let wrong = format!("GET /metrics\nauthorization: Bearer {SECRET}{SECRET}");
    assert_eq!(ask(admin, &wrong).await.0, 401);
    let right = format!("GET /metrics\nauthorization: Bearer {SECRET}");
    assert_eq!(ask(admin, &right).await.0, 200);
    process.signal(libc::SIGTERM).unwrap();
    process.wait_exit(LIMIT).await.unwrap();
}

#[tokio::test]
async fn on_a_unix_socket_it_is_its_owners_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("admin.sock");
    let mut process = spawn("")
        .env("SUNDOWN_ADMIN", format!("unix:{}", path.display()))
        .start()
        .unwrap();
    process.wait_output("ready", LIMIT).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(answer_on(&path).await.starts_with("HTTP/1.1 200"));
    process.signal(libc::SIGTERM).unwrap();
    process.wait_exit(LIMIT).await.unwrap();
    assert!(!path.exists());
}

async fn answer_on(path: &Path) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = UnixStream::connect(path).await.unwrap();
    let request = "GET /lifecycle HTTP/1.1\r\nhost: \r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
