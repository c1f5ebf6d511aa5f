//! The orders' table, and nothing else: who calls decides what belongs in a transaction with it.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, AnyPool, FromRow};

use crate::answer::Refusal;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (
        id TEXT PRIMARY KEY,
        item TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        status TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS outbox (
        sequence NUMBERED_KEY,
        order_id TEXT NOT NULL,
        event TEXT NOT NULL
    );
";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
    #[sqlx(try_from = "String")]
    pub(crate) status: Status,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Inventory has not confirmed it yet.
    Placed,
    Reserved,
    /// There was not enough stock.
    Refused,
    Cancelled,
}

impl TryFrom<String> for Status {
    type Error = serde::de::value::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::deserialize(text.into_deserializer())
    }
}

/// What a client asks for. Its own id makes asking again safe.
#[derive(Debug, Deserialize)]
pub(crate) struct NewOrder {
    id: Option<String>,
    item: String,
    quantity: i64,
}

impl NewOrder {
    /// Turns a wish into an order, with an id where it has none.
    pub(crate) fn check(self) -> Result<Order, Refusal> {
        let Self { id, item, quantity } = self;
        let id = id.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        if !(1..=64).contains(&id.len()) {
            return Err(Refusal::Invalid("id must have 1 to 64 bytes"));
        }
        if !(1..=64).contains(&item.len()) {
            return Err(Refusal::Invalid("item must have 1 to 64 bytes"));
        }
        if !(1..=i64::from(u32::MAX)).contains(&quantity) {
            return Err(Refusal::Invalid("quantity must be from 1 to 4294967295"));
        }
        let status = Status::Placed;
        Ok(Order {
            id,
            item,
            quantity,
            status,
        })
    }
}

/// What came of placing an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    New(Order),
    /// The same order is there already: a client asked again.
    Again(Order),
    /// Another order has its id.
    Conflict,
}

impl Placed {
    pub(crate) fn answer(self) -> Result<(StatusCode, Json<Order>), Refusal> {
        match self {
            Self::New(order) => Ok((StatusCode::CREATED, Json(order))),
            Self::Again(order) => Ok((StatusCode::OK, Json(order))),
            Self::Conflict => Err(Refusal::Conflict),
        }
    }
}

/// Writes an order unless its id is taken. Writes before it reads: a SQLite transaction that began
/// by reading could not become a writer once somebody else wrote.
pub(crate) async fn place(
    connection: &mut AnyConnection,
    order: Order,
) -> Result<Placed, sqlx::Error> {
    let Order {
        id, item, quantity, ..
    } = &order;
    let written = sqlx::query(
        "INSERT INTO orders (id, item, quantity, status) VALUES ($1, $2, $3, 'placed')
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(item)
    .bind(quantity)
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 1 {
        return Ok(Placed::New(order));
    }
    let there: Order = sqlx::query_as("SELECT * FROM orders WHERE id = $1")
        .bind(id)
        .fetch_one(connection)
        .await?;
    let same = (&there.item, there.quantity) == (item, *quantity);
    Ok(if same {
        Placed::Again(there)
    } else {
        Placed::Conflict
    })
}

/// Cancels an order, and returns it if it was not cancelled before.
pub(crate) async fn cancel(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<Option<Order>, sqlx::Error> {
    sqlx::query_as(
        "UPDATE orders SET status = 'cancelled' WHERE id = $1 AND status <> 'cancelled'
         RETURNING *",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

pub(crate) async fn find(pool: &AnyPool, id: &str) -> Result<Option<Order>, sqlx::Error> {
    let query = sqlx::query_as("SELECT * FROM orders WHERE id = $1").bind(id);
    query.fetch_optional(pool).await
}

pub(crate) async fn list(pool: &AnyPool, limit: u32) -> Result<Vec<Order>, sqlx::Error> {
    let query = sqlx::query_as("SELECT * FROM orders ORDER BY id LIMIT $1");
    query.bind(i64::from(limit)).fetch_all(pool).await
}

/// One line of the report.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct Report {
    item: String,
    orders: i64,
    quantity: i64,
}

/// Sums up the orders that are not cancelled; the pause stands for a query that takes long.
pub(crate) async fn report(pool: &AnyPool, pause: Duration) -> Result<Vec<Report>, sqlx::Error> {
    tokio::time::sleep(pause).await;
    sqlx::query_as(
        "SELECT item, COUNT(*) AS orders, CAST(SUM(quantity) AS BIGINT) AS quantity
         FROM orders WHERE status <> 'cancelled' GROUP BY item ORDER BY item",
    )
    .fetch_all(pool)
    .await
}
