//! The same two services, written the way many real ones are: `axum::serve` with its graceful
//! shutdown, and the call to the other service in a background task.
//!
//! No caricature: every order is committed before it is answered, the call is made at once and
//! usually succeeds, and SIGTERM is handled as axum's documentation shows. What is missing shows
//! only when a process ends: nobody waits for the task, and nothing remembers that it was due.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use sqlx::AnyPool;
use sundown_telemetry::ClientLayer;
use sundown_telemetry::propagation::Propagation;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal;

use crate::answer::Refusal;
use crate::database::{self, DatabaseUrl, OpenError};
use crate::event::{Event, Kind, Outcome};
use crate::orders::store::{self, NewOrder, Order, Placed, Report};
use crate::orders::{Inventory, InventoryUrl, Slowness};
use crate::{inventory, pages};

/// Runs the order service until SIGTERM.
pub(crate) fn orders(
    listen: SocketAddr,
    database: DatabaseUrl,
    inventory: InventoryUrl,
) -> ExitCode {
    run(async move {
        let pool = database::open(&database, store::SCHEMA).await?;
        let inventory = Inventory::at(&inventory, &ClientLayer::new(Propagation::default()));
        let orders = Orders {
            pool: pool.clone(),
            inventory,
        };
        let router = Router::new()
            .route("/orders", post(place))
            .route("/orders/{id}", delete(cancel))
            .route("/report", get(report))
            .with_state(orders)
            .merge(pages::orders(pool.clone()));
        serve("orders", listen, router).await?;
        pool.close().await;
        Ok(())
    })
}

/// Runs the inventory service until SIGTERM.
pub(crate) fn inventory(listen: SocketAddr, database: DatabaseUrl) -> ExitCode {
    run(async move {
        let pool = database::open(&database, inventory::store::SCHEMA).await?;
        let router = Router::new()
            .route("/events", post(apply))
            .with_state(pool.clone())
            .merge(pages::inventory(pool.clone()));
        serve("inventory", listen, router).await?;
        pool.close().await;
        Ok(())
    })
}

#[derive(Debug, Error)]
enum NaiveError {
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error("could not serve")]
    Serve(#[from] io::Error),
}

fn run(service: impl Future<Output = Result<(), NaiveError>>) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(NaiveError::from);
    match runtime.and_then(|runtime| runtime.block_on(service)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error
                .source()
                .map_or(String::new(), |cause| format!(": {cause}"));
            eprintln!("error: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(name: &str, listen: SocketAddr, router: Router) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    // In one piece: whoever started us reads the address from it.
    let ready = format!("{name}: ready, http on {}\n", listener.local_addr()?);
    eprint!("{ready}");
    axum::serve(listener, router)
        .with_graceful_shutdown(asked_to_stop())
        .await
}

async fn asked_to_stop() {
    let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())
        .expect("the process may handle its signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = signal::ctrl_c() => {}
    }
}

#[derive(Clone)]
struct Orders {
    pool: AnyPool,
    inventory: Inventory,
}

impl Orders {
    /// One attempt, in the background: the client need not wait for another service.
    fn tell(&self, event: Event) {
        let inventory = self.inventory.clone();
        tokio::spawn(async move {
            if let Err(error) = inventory.tell(&[event], HeaderMap::new()).await {
                tracing::warn!(%error, "inventory was not told");
            }
        });
    }
}

async fn place(
    State(orders): State<Orders>,
    Json(wish): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), Refusal> {
    let order = wish.check()?;
    let mut transaction = orders.pool.begin().await?;
    let placed = store::place(&mut transaction, order).await?;
    transaction.commit().await?;
    if let Placed::New(Order {
        id, item, quantity, ..
    }) = &placed
    {
        orders.tell(Event::new(Kind::Reserve, id, item, *quantity));
    }
    placed.answer()
}

async fn cancel(
    State(orders): State<Orders>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Refusal> {
    let mut transaction = orders.pool.begin().await?;
    let cancelled = store::cancel(&mut transaction, &id).await?;
    transaction.commit().await?;
    if let Some(Order {
        id, item, quantity, ..
    }) = cancelled
    {
        orders.tell(Event::new(Kind::Release, &id, &item, quantity));
    }
    let order = store::find(&orders.pool, &id).await?;
    order.map(Json).ok_or(Refusal::NotFound)
}

async fn report(
    State(orders): State<Orders>,
    Query(slowness): Query<Slowness>,
) -> Result<Json<Vec<Report>>, Refusal> {
    Ok(Json(store::report(&orders.pool, slowness.time()).await?))
}

async fn apply(
    State(pool): State<AnyPool>,
    Json(events): Json<Vec<Event>>,
) -> Result<Json<Vec<Outcome>>, Refusal> {
    Ok(Json(inventory::store::apply(&pool, &events).await?))
}
