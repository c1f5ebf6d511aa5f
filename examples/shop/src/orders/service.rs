//! The routes that change orders, and the slow report.
//!
//! Never answers before the commit, and never calls inventory.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use sqlx::AnyPool;
use sundown::Context;
use tokio::sync::Notify;

use super::outbox;
use super::store::{self, NewOrder, Order, Placed, Report};
use crate::answer::Refusal;
use crate::event::{Event, Kind};
use crate::pages;

#[derive(Clone)]
struct Orders {
    pool: AnyPool,
    /// Tells the outbox's worker that there is something to carry.
    news: Arc<Notify>,
}

pub(super) fn router(pool: AnyPool, news: Arc<Notify>) -> Router {
    let orders = Orders {
        pool: pool.clone(),
        news,
    };
    Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", axum::routing::delete(cancel))
        .route("/report", get(report))
        .with_state(orders)
        .merge(pages::orders(pool))
}

/// 201 for a new order, 200 for one that was placed before.
async fn place(
    State(orders): State<Orders>,
    Json(wish): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), Refusal> {
    let order = wish.check()?;
    let mut transaction = orders.pool.begin().await?;
    let placed = store::place(&mut transaction, order).await?;
    if let Placed::New(Order {
        id, item, quantity, ..
    }) = &placed
    {
        let event = Event::new(Kind::Reserve, id, item, *quantity);
        outbox::record(&mut transaction, &event).await?;
    }
    transaction.commit().await?;
    orders.news.notify_one();
    if let Placed::New(order) = &placed {
        tracing::info!(order = order.id, "order placed");
    }
    placed.answer()
}

/// Cancels an order; one that is cancelled already stays so.
async fn cancel(
    State(orders): State<Orders>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Refusal> {
    let mut transaction = orders.pool.begin().await?;
    if let Some(Order {
        id, item, quantity, ..
    }) = store::cancel(&mut transaction, &id).await?
    {
        let event = Event::new(Kind::Release, &id, &item, quantity);
        outbox::record(&mut transaction, &event).await?;
    }
    transaction.commit().await?;
    orders.news.notify_one();
    let order = store::find(&orders.pool, &id).await?;
    order.map(Json).ok_or(Refusal::NotFound)
}

/// `?ms=300`
#[derive(Debug, Deserialize)]
pub(crate) struct Slowness {
    #[serde(default = "Slowness::usual")]
    ms: u64,
}

impl Slowness {
    fn usual() -> u64 {
        300
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// Sums up the orders, slowly. Gives up when its client is gone, the client's deadline has passed
/// or the service runs out of grace.
async fn report(
    State(orders): State<Orders>,
    Query(slowness): Query<Slowness>,
    ctx: Context,
) -> Result<Json<Vec<Report>>, Refusal> {
    let report = ctx
        .run(store::report(&orders.pool, slowness.time()))
        .await?;
    Ok(Json(report?))
}
