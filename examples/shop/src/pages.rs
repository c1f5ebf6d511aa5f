//! The routes that do not depend on how a service stops: both ways of writing it serve these.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::AnyPool;

use crate::answer::Refusal;
use crate::inventory::store::{self as stock, Item, Reservation};
use crate::orders::store::{self as orders, Order};

/// `GET /` and `/fast`: answers `ok`.
fn greeting<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || "ok"))
        .route("/fast", get(async || "ok"))
}

/// What the order service serves either way.
pub(crate) fn orders(pool: AnyPool) -> Router {
    Router::new()
        .route("/orders", get(list_orders))
        .route("/orders/{id}", get(find_order))
        .route("/outbox", get(outbox))
        .route("/images", post(upload))
        .merge(greeting())
        .with_state(pool)
}

/// What the inventory service serves either way.
pub(crate) fn inventory(pool: AnyPool) -> Router {
    Router::new()
        .route("/reservations", get(list_reservations))
        .route("/stock", get(list_stock))
        .merge(greeting())
        .with_state(pool)
}

/// `?limit=100`
#[derive(Debug, Deserialize)]
struct Limit {
    #[serde(default = "Limit::usual")]
    limit: u32,
}

impl Limit {
    fn usual() -> u32 {
        100
    }
}

async fn list_orders(
    State(pool): State<AnyPool>,
    Query(Limit { limit }): Query<Limit>,
) -> Result<Json<Vec<Order>>, Refusal> {
    Ok(Json(orders::list(&pool, limit).await?))
}

async fn find_order(
    State(pool): State<AnyPool>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Refusal> {
    let order = orders::find(&pool, &id).await?;
    order.map(Json).ok_or(Refusal::NotFound)
}

/// How many events inventory has not confirmed yet.
async fn outbox(State(pool): State<AnyPool>) -> Result<Json<Value>, Refusal> {
    let pending = crate::orders::outbox::count(&pool).await?;
    Ok(Json(json!({ "pending": pending })))
}

/// Takes an image of any size, frame by frame, and says how long it was.
async fn upload(mut image: Body) -> Result<Json<Value>, Refusal> {
    let mut bytes = 0;
    while let Some(frame) = image.frame().await {
        let frame = frame.map_err(Refusal::Body)?;
        bytes += frame.data_ref().map_or(0, |data| data.len());
    }
    Ok(Json(json!({ "bytes": bytes })))
}

async fn list_reservations(
    State(pool): State<AnyPool>,
    Query(Limit { limit }): Query<Limit>,
) -> Result<Json<Vec<Reservation>>, Refusal> {
    Ok(Json(stock::reservations(&pool, limit).await?))
}

async fn list_stock(State(pool): State<AnyPool>) -> Result<Json<Vec<Item>>, Refusal> {
    Ok(Json(stock::items(&pool).await?))
}
