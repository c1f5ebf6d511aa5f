//! Sundown: `App` with the contract's router.

use std::process::ExitCode;

use sundown::{App, Listener};

fn main() -> ExitCode {
    let port = std::env::args().nth(1).expect("usage: peer-sundown PORT");
    let listener = Listener::http(format!("127.0.0.1:{port}"), peers::router());
    App::new("peer-sundown").listener(listener).run()
}
