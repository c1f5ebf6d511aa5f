//! The order service: each order and the event about it are written in one transaction, and a
//! worker carries the events to inventory.
//!
//! The way of an order: `service` takes it, `store` writes it, `outbox` writes the event and later
//! hands it to `upstream`, which calls inventory.

mod service;

pub(crate) mod outbox;
pub(crate) mod store;
mod upstream;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use sundown::{Consumer, Worker};

use crate::database::{self, DatabaseUrl};
use crate::telemetry::Telemetry;
use outbox::{Outbox, deliver};

pub(crate) use service::Slowness;
pub(crate) use upstream::{Inventory, InventoryUrl};

/// Runs the order service until it is stopped.
pub(crate) fn run(
    telemetry: Telemetry,
    listen: SocketAddr,
    database: DatabaseUrl,
    inventory: InventoryUrl,
) -> ExitCode {
    let app = telemetry
        .clone()
        .app("orders")
        .grace(Duration::from_secs(25));
    app.run_with(async move |app| {
        let pool = database::open(&database, store::SCHEMA).await?;
        let outbox = Outbox::new(pool.clone());
        telemetry.on_this_runtime();
        let router = telemetry.of_requests(service::router(pool.clone(), outbox.news()));
        let inventory = Inventory::at(&inventory, &telemetry.of_calls());
        let consumer = Consumer::new(outbox, move |batch, ctx| {
            deliver(batch, inventory.clone(), ctx)
        });
        Ok(app
            .http(listen, router)
            .add_worker(Worker::consumer("outbox", consumer))
            .release("orders-db", pool))
    })
}
