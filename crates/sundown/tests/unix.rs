//! Unix sockets over a stop: the queue is served, late connects are refused, and the file is gone.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use sundown::{App, ExitStatus, Handle, Listener, ListenerStop, Report};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A service on a Unix socket that answers `/held` when it is let go.
struct Served {
    handle: Handle,
    running: JoinHandle<Report>,
    folder: TempDir,
    begun: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
}

impl Served {
    async fn start(adapt: impl FnOnce(Listener) -> Listener) -> Self {
        let folder = TempDir::new().unwrap();
        let address = format!("unix:{}", folder.path().join("socket").display());
        let (begun, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let held = {
            let (begun, let_go) = (begun.clone(), let_go.clone());
            async move || {
                begun.add_permits(1);
                let_go.acquire().await.unwrap().forget();
                "held"
            }
        };
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/held", get(held));
        let app = App::new("unix").listener(adapt(Listener::http(address, router)));
        let handle = app.handle();
        let running = tokio::spawn(async move { app.serve().await.unwrap() });
        handle.ready().await;
        Self {
            handle,
            running,
            folder,
            begun,
            let_go,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }
}

async fn ask(path: &Path, target: &str) -> UnixStream {
    let mut client = UnixStream::connect(path).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: unix\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn answer(mut client: UnixStream) -> String {
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    seen.rsplit("\r\n\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn who_waits_in_the_queue_is_answered_and_who_comes_later_is_refused() {
    let served = Served::start(|listener| listener.max_connections(1)).await;
    let path = served.path();
    let held = ask(&path, "/held").await;
    served.begun.acquire().await.unwrap().forget();
    // There is no place for these: they wait in the queue.
    let waiting = [ask(&path, "/").await, ask(&path, "/").await];

    served.handle.shutdown("the test");
    let late = loop {
        match UnixStream::connect(&path).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error.kind(),
        }
    };
    assert!(
        matches!(late, ErrorKind::ConnectionRefused | ErrorKind::NotFound),
        "{late:?}"
    );
    served.let_go.add_permits(1);
    for client in waiting {
        assert_eq!(answer(client).await, "ok");
    }
    assert_eq!(answer(held).await, "held");
    let report = served.running.await.unwrap();
    assert_eq!(report.exit_status(), ExitStatus::Drained, "{report}");
    let listener = &report.listeners[0];
    assert_eq!(listener.closed_by, ListenerStop::Deaf);
    assert_eq!(
        listener.address.to_string(),
        format!("unix:{}", path.display())
    );
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_is_its_owners_and_its_groups_if_nobody_says_otherwise() {
    for (mode, expected) in [(None, 0o660), (Some(0o600), 0o600)] {
        let adapt = |listener: Listener| match mode {
            Some(mode) => listener.mode(mode),
            None => listener,
        };
        let served = Served::start(adapt).await;
        let file = std::fs::metadata(served.path()).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, expected);
        let mut client = ask(&served.path(), "/").await;
        let mut seen = [0; 12];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"HTTP/1.1 200");
        served.handle.shutdown("the test");
        drop(client);
        assert_eq!(served.running.await.unwrap().exit_code, 0);
    }
}
