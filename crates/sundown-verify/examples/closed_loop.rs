//! The clients of this crate without a pause: how many answers a second they get.
//!
//! `closed_loop ADDRESS PATH CONNECTIONS SECONDS`; it prints the rate as wrk does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sundown_verify::http1::{Connection, Letter};
use sundown_verify::outcome::judge;
use sundown_verify::tcp::Window;
use sundown_verify::{Kind, Plan, Request, Tally};
use tokio::task::JoinSet;

const USAGE: &str = "usage: closed_loop ADDRESS PATH CONNECTIONS SECONDS";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, seconds] = words.as_slice() else {
        panic!("{USAGE}");
    };
    let address: SocketAddr = address.parse().expect(USAGE);
    let connections: usize = connections.parse().expect(USAGE);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds.parse().expect(USAGE));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let letter = Letter::new(&[Request::get(path.as_str())], address);
        clients.spawn(ask_until(end, letter, address));
    }
    let mut all = Tally::default();
    for tally in clients.join_all().await {
        all.merge(tally);
    }
    assert_eq!(all.total.lost, 0, "{:?}", all.total);
    let rate = all.total.answered as f64 / begin.elapsed().as_secs_f64();
    println!("Requests/sec: {rate:.2}");
}

/// Keeps a request under way on one connection.
async fn ask_until(end: Instant, letter: Letter, address: SocketAddr) -> Tally {
    let mut tally = Tally::default();
    let opened = Connection::open(address, Window::Usual, Plan::HANG_LIMIT).await;
    let mut connection = opened.expect("the server takes connections");
    while Instant::now() < end {
        let exchange = connection.exchange(&letter, Plan::HANG_LIMIT).await;
        tally.count(Kind::KeepAlive, judge(&exchange.evidence(0)));
    }
    tally
}
