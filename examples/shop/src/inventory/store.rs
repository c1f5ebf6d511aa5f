//! Stock and reservations. The id of an event is written in the transaction that applies it, so
//! that it is applied once.

use serde::Serialize;
use sqlx::{AnyConnection, AnyPool, FromRow};
use tracing::Instrument as _;

use crate::event::{Event, Kind, Outcome, Stock};

/// What there is of every item at first: enough for any demonstration.
pub(crate) const STOCK: i64 = 1_000_000;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (event_id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS stock (
        item TEXT PRIMARY KEY,
        available BIGINT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS reservations (
        order_id TEXT PRIMARY KEY,
        item TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        state TEXT NOT NULL
    );
";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub(crate) struct Reservation {
    pub(crate) order_id: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
    #[sqlx(try_from = "String")]
    pub(crate) state: Stock,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub(crate) struct Item {
    pub(crate) item: String,
    pub(crate) available: i64,
}

/// Applies events in their order, in one transaction; those that were applied before are only
/// answered.
pub(crate) async fn apply(pool: &AnyPool, events: &[Event]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let mut outcomes = Vec::with_capacity(events.len());
    for event in events {
        let span = tracing::info_span!("apply", otel.kind = "consumer", order = event.order);
        let stock = apply_one(&mut transaction, event);
        let stock = stock.instrument(event.continued_by(span)).await?;
        outcomes.push(Outcome {
            order: event.order.clone(),
            stock,
        });
    }
    transaction.commit().await?;
    Ok(outcomes)
}

async fn apply_one(connection: &mut AnyConnection, event: &Event) -> Result<Stock, sqlx::Error> {
    if is_new(connection, event).await? {
        match event.kind {
            Kind::Reserve => reserve(connection, event).await?,
            Kind::Release => release(connection, event).await?,
        }
    }
    let stock = stock_of(connection, &event.order).await?;
    tracing::info!(order = event.order, ?stock, "event applied");
    Ok(stock)
}

async fn is_new(connection: &mut AnyConnection, event: &Event) -> Result<bool, sqlx::Error> {
    let query = "INSERT INTO events (event_id) VALUES ($1) ON CONFLICT (event_id) DO NOTHING";
    let written = sqlx::query(query)
        .bind(&event.event_id)
        .execute(connection)
        .await?;
    Ok(written.rows_affected() == 1)
}

async fn reserve(connection: &mut AnyConnection, event: &Event) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO stock (item, available) VALUES ($1, $2) ON CONFLICT (item) DO NOTHING",
    )
    .bind(&event.item)
    .bind(STOCK)
    .execute(&mut *connection)
    .await?;
    let taken = sqlx::query(
        "UPDATE stock SET available = available - $2 WHERE item = $1 AND available >= $2",
    )
    .bind(&event.item)
    .bind(event.quantity)
    .execute(&mut *connection)
    .await?;
    let state = if taken.rows_affected() == 1 {
        "reserved"
    } else {
        "refused"
    };
    sqlx::query(
        "INSERT INTO reservations (order_id, item, quantity, state) VALUES ($1, $2, $3, $4)",
    )
    .bind(&event.order)
    .bind(&event.item)
    .bind(event.quantity)
    .bind(state)
    .execute(connection)
    .await?;
    Ok(())
}

async fn release(connection: &mut AnyConnection, event: &Event) -> Result<(), sqlx::Error> {
    let query = "UPDATE reservations SET state = 'released'
                 WHERE order_id = $1 AND state = 'reserved'";
    let released = sqlx::query(query)
        .bind(&event.order)
        .execute(&mut *connection)
        .await?;
    if released.rows_affected() == 1 {
        sqlx::query("UPDATE stock SET available = available + $2 WHERE item = $1")
            .bind(&event.item)
            .bind(event.quantity)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn stock_of(connection: &mut AnyConnection, order: &str) -> Result<Stock, sqlx::Error> {
    let query = sqlx::query_as("SELECT * FROM reservations WHERE order_id = $1").bind(order);
    let reservation: Option<Reservation> = query.fetch_optional(connection).await?;
    Ok(reservation.map_or(Stock::None, |it| it.state))
}

pub(crate) async fn reservations(
    pool: &AnyPool,
    limit: u32,
) -> Result<Vec<Reservation>, sqlx::Error> {
    let query = sqlx::query_as("SELECT * FROM reservations ORDER BY order_id LIMIT $1");
    query.bind(i64::from(limit)).fetch_all(pool).await
}

pub(crate) async fn items(pool: &AnyPool) -> Result<Vec<Item>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM stock ORDER BY item")
        .fetch_all(pool)
        .await
}
