//! A service within somebody else's program: the async form, its handle, and what it serves.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{Router, routing::get};
use sundown::{
    Acknowledge, App, BoxError, Consumer, Context, Delivery, Handle, Listener, Phase, Pulled,
    Reason, Report, Source, Worker,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn listener() -> Listener {
    Listener::http(
        "127.0.0.1:0",
        Router::new().route("/", get(|| async { "ok" })),
    )
}

async fn start(app: App) -> (Handle, JoinHandle<Report>) {
    let handle = app.handle();
    let running = tokio::spawn(async { app.serve().await.unwrap() });
    assert_eq!(handle.ready().await, Phase::Ready);
    (handle, running)
}

fn address(handle: &Handle) -> SocketAddr {
    handle.address("http").unwrap()
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 1024];
    let count = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

/// The channel's other end lies in the router; it must go before resources are released.
#[tokio::test]
async fn a_worker_that_ends_with_the_services_last_sender_holds_no_drain_open() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(1);
    let router = Router::new().route(
        "/",
        get(move || {
            let sender = sender.clone();
            async move { sender.send("one".into()).await.map_or("late", |()| "ok") }
        }),
    );
    let mut receiver = Some(receiver);
    let reader = Worker::new("reader", move |_ctx| {
        let mut receiver = receiver.take().expect("it runs once");
        async move {
            while receiver.recv().await.is_some() {}
            Ok(())
        }
    });
    let app = App::new("embedded")
        .listener(Listener::http("127.0.0.1:0", router))
        .add_worker(reader);
    let (handle, running) = start(app).await;
    let mut client = TcpStream::connect(address(&handle)).await.unwrap();
    assert!(ask(&mut client).await.ends_with("ok"));
    drop(client);
    handle.shutdown("enough");
    let report = running.await.unwrap();
    assert_eq!((report.exit_code, report.cut_off.len()), (0, 0));
}

#[tokio::test]
async fn a_handle_stops_the_service_and_every_phase_is_seen_in_order() {
    let app = App::new("embedded").listener(listener());
    let mut phases = app.handle().phases();
    let watcher = tokio::spawn(async move {
        let mut seen = vec![*phases.borrow_and_update()];
        while *seen.last().unwrap() != Phase::Stopped {
            phases.changed().await.unwrap();
            seen.push(*phases.borrow_and_update());
        }
        seen
    });
    let (handle, running) = start(app).await;
    handle.shutdown("enough");
    let report = running.await.unwrap();
    assert_eq!(
        (report.exit_code, report.reason),
        (0, Some(Reason::Handle("enough".into())))
    );
    let seen = watcher.await.unwrap();
    assert!(
        seen.is_sorted() && seen.contains(&Phase::Stopped),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_tower_service_asks_for_its_context_where_it_is_polled_and_nowhere_else() {
    let service = tower::service_fn(|_: http::Request<sundown::Body>| {
        let in_call = Context::current().is_some();
        async move {
            let in_future = Context::current().is_some();
            let in_task = tokio::spawn(async { Context::current().is_some() }).await?;
            let answer = format!("{in_call} {in_future} {in_task}");
            Ok::<_, BoxError>(http::Response::new(answer))
        }
    });
    let (handle, running) = start(App::new("plain").http("127.0.0.1:0", service)).await;
    let mut stream = TcpStream::connect(address(&handle)).await.unwrap();
    let answer = ask(&mut stream).await;
    assert!(answer.ends_with("true true false"), "{answer}");
    assert!(Context::current().is_none());
    handle.shutdown("enough");
    running.await.unwrap();
}

#[tokio::test]
async fn a_service_that_panics_when_called_answers_500_and_the_connection_lives_on() {
    let mut calls = 0;
    let service = tower::service_fn(move |_: http::Request<sundown::Body>| {
        calls += 1;
        assert!(calls > 1, "the first call fails");
        async { Ok::<_, BoxError>(http::Response::new("ok".to_owned())) }
    });
    let (handle, running) = start(App::new("panics").http("127.0.0.1:0", service)).await;
    let mut stream = TcpStream::connect(address(&handle)).await.unwrap();
    for _ in 0..2 {
        let answer = ask(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    }
    handle.shutdown("enough");
    assert_eq!(running.await.unwrap().requests.finished, 2);
}

#[tokio::test]
async fn services_run_beside_each_other_and_after_each_other() {
    let (first, first_running) = start(App::new("first").listener(listener())).await;
    let (second, second_running) = start(App::new("second").listener(listener())).await;
    first.shutdown("one is enough");
    assert_eq!(first_running.await.unwrap().exit_code, 0);
    let mut stream = TcpStream::connect(address(&second)).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    second.shutdown("none is enough");
    assert_eq!(second_running.await.unwrap().exit_code, 0);
}

#[tokio::test]
async fn connections_over_the_limit_wait_in_the_queue_and_are_not_lost_by_a_stop() {
    let app = App::new("narrow").listener(listener().max_connections(1));
    let (handle, running) = start(app).await;
    let mut first = TcpStream::connect(address(&handle)).await.unwrap();
    ask(&mut first).await;
    let mut second = TcpStream::connect(address(&handle)).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    handle.shutdown("with one in the queue");
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );
    drop(first);
    assert_eq!(running.await.unwrap().exit_code, 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let app = App::new("brief").listener(listener().keep_alive(Duration::from_millis(50)));
    let (handle, running) = start(app).await;
    let mut stream = TcpStream::connect(address(&handle)).await.unwrap();
    ask(&mut stream).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    handle.shutdown("done");
    assert_eq!(running.await.unwrap().connections.closed_idle, 1);
}

/// What a source and its handler did.
#[derive(Default)]
struct Seen {
    pulled: Vec<u32>,
    handled: Vec<u32>,
    acknowledged: Vec<u32>,
    flushed: bool,
}

/// Numbers without end, three at a time.
struct Numbers {
    next: u32,
    seen: Arc<Mutex<Seen>>,
}

impl Source for Numbers {
    type Item = u32;
    type Receipt = u32;

    async fn pull(&mut self) -> Pulled<u32, u32> {
        let batch: VecDeque<u32> = (self.next..self.next + 3).collect();
        self.next += 3;
        self.seen.lock().unwrap().pulled.extend(&batch);
        Ok(batch
            .into_iter()
            .map(|item| Delivery {
                receipt: item,
                item,
            })
            .collect())
    }

    async fn acknowledge(&mut self, receipts: Vec<u32>) -> Result<(), BoxError> {
        self.seen.lock().unwrap().acknowledged.extend(receipts);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BoxError> {
        self.seen.lock().unwrap().flushed = true;
        Ok(())
    }
}

#[tokio::test]
async fn a_consumer_finishes_and_acknowledges_what_it_took_in_order_and_flushes() {
    for mode in [Acknowledge::Each, Acknowledge::Batch, Acknowledge::Position] {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let source = Numbers {
            next: 0,
            seen: seen.clone(),
        };
        let app = App::new("consumer");
        let (handle, of_handler) = (app.handle(), seen.clone());
        let handler = move |item: u32, _ctx: Context| {
            let (seen, handle) = (of_handler.clone(), handle.clone());
            async move {
                // Some take longer than those behind them.
                for _ in 0..item % 5 {
                    tokio::task::yield_now().await;
                }
                seen.lock().unwrap().handled.push(item);
                if item == 20 {
                    handle.shutdown("in the middle");
                }
                Ok(())
            }
        };
        let consumer = Consumer::new(source, handler)
            .concurrency(4)
            .acknowledge(mode);
        let report = app
            .add_worker(Worker::consumer("numbers", consumer))
            .serve()
            .await
            .unwrap();
        assert_eq!(report.exit_code, 0, "{report}");
        let mut seen = seen.lock().unwrap();
        seen.handled.sort_unstable();
        assert_eq!(
            seen.handled, seen.pulled,
            "{mode:?}: what was taken was finished"
        );
        assert!(
            seen.acknowledged.is_sorted(),
            "{mode:?}: {:?}",
            seen.acknowledged
        );
        assert_eq!(seen.acknowledged.last(), seen.pulled.last(), "{mode:?}");
        if mode != Acknowledge::Position {
            assert_eq!(seen.acknowledged, seen.pulled, "{mode:?}");
        }
        assert!(seen.flushed, "{mode:?}");
    }
}

/// A stop may come before the task that accepts has run for the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_first_instant_answers_whoever_waits_in_the_queue() {
    for round in 0..200 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let router = Router::new().route("/", get(|| async { "ok" }));
        let app = App::new("test").http(listener, router).stop_when(async {});
        let heard = async move {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (report, answer) = tokio::join!(app.serve(), heard);
        assert_eq!(report.unwrap().listeners.len(), 1, "in round {round}");
        assert!(answer.ends_with("ok"), "in round {round}: {answer}");
    }
}
