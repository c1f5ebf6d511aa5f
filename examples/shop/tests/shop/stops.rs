//! What a stop costs, by SIGTERM and by SIGKILL.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use rand::Rng as _;
use serde_json::json;
use sundown_verify::process::Ended;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Databases, Load, Service, Way, address};
use Target::{Both, Inventory, Orders};

/// Sends the first bytes of a request; they reach the server's socket before this returns.
pub(crate) async fn begin(orders: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(orders).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Reads to the end of the connection.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_in_flight_are_answered_before_the_process_exits() {
    let databases = Databases::new("in-flight");
    let inventory = Service::inventory(Way::Sundown, &databases, address()).await;
    let mut orders = Service::orders(Way::Sundown, &databases, inventory.addr).await;
    let body = r#"{"id":"last","item":"tea","quantity":1}"#;
    let order = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    );
    let image = "POST /images HTTP/1.1\r\nhost: shop\r\ncontent-length: 8\r\n\r\nhalf";
    let report = begin(
        orders.addr,
        "GET /report?ms=200 HTTP/1.1\r\nhost: shop\r\n\r\n",
    )
    .await;
    let mut image = begin(orders.addr, image).await;
    let order = begin(orders.addr, &order).await;

    orders.signal(libc::SIGTERM);
    image.write_all(b"half").await.unwrap();

    let (report, image, order) = tokio::join!(answer(report), answer(image), answer(order));
    assert!(report.starts_with("HTTP/1.1 200"), "{report}");
    assert!(image.ends_with(r#"{"bytes":8}"#), "{image}");
    assert!(order.starts_with("HTTP/1.1 201"), "{order}");
    orders.ended(Ended::Code(0)).await;
    inventory.stop().await;
    let audit = databases.audit().await;
    assert!(audit.is_clean(), "{audit:?}");
    assert!(audit.missing_acknowledged(["last"]).is_empty());
}

/// Takes ten orders while inventory is away, stops, and starts both again.
async fn orders_taken_while_inventory_is_away(way: Way, name: &str) -> shop::Audit {
    let databases = Databases::new(name);
    let mut inventory = Service::inventory(way, &databases, address()).await;
    inventory.signal(libc::SIGKILL);
    inventory.ended(Ended::Signal(libc::SIGKILL)).await;

    let orders = Service::orders(way, &databases, inventory.addr).await;
    for _ in 0..10 {
        let (status, _) = orders
            .post("/orders", json!({ "item": "tea", "quantity": 1 }))
            .await;
        assert_eq!(status, StatusCode::CREATED);
    }
    orders.stop().await;
    let audit = databases.audit().await;
    assert_eq!(
        audit.orders_without_stock + audit.orders_awaiting_stock,
        10,
        "{audit:?}"
    );

    let inventory = Service::inventory(way, &databases, inventory.addr).await;
    let orders = Service::orders(way, &databases, inventory.addr).await;
    orders.outbox_is_empty().await;
    orders.stop().await;
    inventory.stop().await;
    databases.audit().await
}

#[tokio::test]
async fn an_order_waits_in_the_outbox_while_inventory_is_away() {
    let audit = orders_taken_while_inventory_is_away(Way::Sundown, "away").await;
    assert!(audit.is_settled(), "{audit:?}");
    assert_eq!(audit.reservations, 10);
}

#[tokio::test]
async fn the_naive_shop_forgets_what_it_could_not_tell() {
    let audit = orders_taken_while_inventory_is_away(Way::Naive, "away-naive").await;
    assert_eq!(
        (audit.orders_without_stock, audit.outbox_pending),
        (10, 0),
        "{audit:?}"
    );
}

/// Which of the two gets the signal.
#[derive(Debug, Clone, Copy)]
enum Target {
    Orders,
    Inventory,
    Both,
}

/// Signals a shop under load at a random instant and starts again what ended, once for each
/// target; after each round every acknowledged order must be there, and at the end with its stock.
async fn signalled_under_load(databases: Databases, signal: i32, targets: Vec<Target>) {
    let end = match signal {
        libc::SIGKILL => Ended::Signal(signal),
        _ => Ended::Code(0),
    };
    let mut inventory = Service::inventory(Way::Sundown, &databases, address()).await;
    let mut orders = Service::orders(Way::Sundown, &databases, inventory.addr).await;
    let mut acknowledged = Vec::new();
    let rounds = targets.len();
    for target in targets {
        let load = Load::start(orders.addr);
        load.reaches(4).await;
        let instant = Duration::from_micros(rand::rng().random_range(0..50_000));
        tokio::time::sleep(instant).await; // tidy: the random instant is what is tested

        if matches!(target, Inventory | Both) {
            inventory.signal(signal);
        }
        if matches!(target, Orders | Both) {
            orders.signal(signal);
            orders.ended(end).await;
        }
        if matches!(target, Inventory | Both) {
            inventory.ended(end).await;
            inventory = Service::inventory(Way::Sundown, &databases, inventory.addr).await;
        }
        acknowledged.extend(load.end().await);
        let audit = databases.audit().await;
        let missing = audit.missing_acknowledged(acknowledged.iter().map(String::as_str));
        assert!(missing.is_empty(), "{target:?}: {missing:?} of {audit:?}");
        if matches!(target, Orders | Both) {
            orders = Service::orders(Way::Sundown, &databases, inventory.addr).await;
        }
    }
    orders.outbox_is_empty().await;
    orders.stop().await;
    inventory.stop().await;
    let audit = databases.audit().await;
    assert!(audit.is_settled(), "{audit:?}");
    let count = acknowledged.len();
    eprintln!("signal {signal}, {rounds} rounds, {count} orders acknowledged: {audit:?}");
}

fn at_random(rounds: usize) -> Vec<Target> {
    let mut rng = rand::rng();
    let target = |_| [Orders, Inventory, Both][rng.random_range(0..3)];
    (0..rounds).map(target).collect()
}

#[tokio::test]
async fn a_sigterm_under_load_loses_no_order_and_no_stock() {
    let databases = Databases::new("term");
    signalled_under_load(databases, libc::SIGTERM, vec![Orders, Inventory, Both]).await;
}

#[tokio::test]
async fn a_sigkill_under_load_loses_no_order_and_no_stock() {
    let databases = Databases::new("kill");
    signalled_under_load(databases, libc::SIGKILL, vec![Orders, Inventory, Both]).await;
}

#[tokio::test]
#[ignore = "a hundred restarts take a while: cargo test -p shop -- --ignored a_hundred"]
async fn a_hundred_sigterms_lose_no_order_and_no_stock() {
    signalled_under_load(Databases::new("term-100"), libc::SIGTERM, at_random(100)).await;
}

#[tokio::test]
#[ignore = "a hundred restarts take a while: cargo test -p shop -- --ignored a_hundred"]
async fn a_hundred_sigkills_lose_no_order_and_no_stock() {
    signalled_under_load(Databases::new("kill-100"), libc::SIGKILL, at_random(100)).await;
}

#[tokio::test]
#[ignore = "needs two empty databases in SHOP_TEST_ORDERS and SHOP_TEST_INVENTORY (postgres://…)"]
async fn on_postgres_a_sigterm_and_a_sigkill_lose_no_order_and_no_stock() {
    let databases = Databases {
        orders: std::env::var("SHOP_TEST_ORDERS").unwrap(),
        inventory: std::env::var("SHOP_TEST_INVENTORY").unwrap(),
    };
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        signalled_under_load(databases.clone(), signal, at_random(10)).await;
    }
}
