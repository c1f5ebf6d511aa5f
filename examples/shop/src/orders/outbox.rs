//! The outbox: events wait in the database of the orders they are about until inventory has
//! confirmed them.
//!
//! An event is written in its order's transaction and deleted after inventory's answer, so that
//! it is never lost and may be sent twice. On draining nothing more is pulled; what waits then is
//! carried after the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{AnyConnection, AnyPool};
use sundown::{BoxError, Context, Delivery, Pulled, Source};
use sundown_telemetry::SpanExt as _;
use tokio::sync::Notify;
use tracing::{Instrument as _, Span};

use super::upstream::{Inventory, TellError};
use crate::event::{Event, Outcome, Stock};

/// How many events one call carries at most.
const BATCH: i64 = 64;

/// How long one call may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The pauses between calls while inventory cannot be reached: the first, doubled up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Writes an event; it takes effect with the caller's transaction.
pub(super) async fn record(
    connection: &mut AnyConnection,
    event: &Event,
) -> Result<(), sqlx::Error> {
    let json = serde_json::to_string(event).expect("an event is a map of strings and numbers");
    sqlx::query("INSERT INTO outbox (order_id, event) VALUES ($1, $2)")
        .bind(&event.order)
        .bind(json)
        .execute(connection)
        .await?;
    Ok(())
}

/// Counts the events that wait.
pub(crate) async fn count(pool: &AnyPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
        .fetch_one(pool)
        .await
}

/// Gives out the oldest events, a batch at a time.
pub(super) struct Outbox {
    pool: AnyPool,
    news: Arc<Notify>,
}

/// Events that are carried by one call, in their order.
pub(super) struct Batch {
    pool: AnyPool,
    events: Vec<Event>,
    delivered: Arc<AtomicBool>,
}

/// The rows of a batch, and whether they have done their work: a stop may have come first.
pub(super) struct Receipt {
    sequences: Vec<i64>,
    delivered: Arc<AtomicBool>,
}

impl Outbox {
    pub(super) fn new(pool: AnyPool) -> Self {
        Self {
            pool,
            news: Arc::default(),
        }
    }

    /// Whoever recorded an event notifies this, after the commit.
    pub(super) fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    async fn oldest(&self) -> Result<(Vec<i64>, Vec<Event>), BoxError> {
        let query = "SELECT sequence, event FROM outbox ORDER BY sequence LIMIT $1";
        let rows: Vec<(i64, String)> = sqlx::query_as(query)
            .bind(BATCH)
            .fetch_all(&self.pool)
            .await?;
        let mut batch = (Vec::new(), Vec::new());
        for (sequence, event) in rows {
            batch.0.push(sequence);
            batch.1.push(serde_json::from_str(&event)?);
        }
        Ok(batch)
    }
}

impl Source for Outbox {
    type Item = Batch;
    type Receipt = Receipt;

    /// Remembers no position: the consumer handles one batch at a time, and what was acknowledged
    /// is no longer in the table.
    async fn pull(&mut self) -> Pulled<Receipt, Batch> {
        loop {
            let (sequences, events) = self.oldest().await?;
            if !events.is_empty() {
                let delivered = Arc::<AtomicBool>::default();
                let receipt = Receipt {
                    sequences,
                    delivered: delivered.clone(),
                };
                let item = Batch {
                    pool: self.pool.clone(),
                    events,
                    delivered,
                };
                return Ok(vec![Delivery { receipt, item }]);
            }
            // News since the look at the table is kept for us.
            self.news.notified().await;
        }
    }

    async fn acknowledge(&mut self, receipts: Vec<Receipt>) -> Result<(), BoxError> {
        let delivered = |receipt: &Receipt| receipt.delivered.load(Ordering::Acquire);
        let mut transaction = self.pool.begin().await?;
        for sequence in receipts
            .into_iter()
            .filter(delivered)
            .flat_map(|it| it.sequences)
        {
            sqlx::query("DELETE FROM outbox WHERE sequence = $1")
                .bind(sequence)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Tells inventory until it has understood. While it cannot be reached, a stop ends the attempts
/// and leaves the events in the outbox.
pub(super) async fn deliver(
    batch: Batch,
    inventory: Inventory,
    ctx: Context,
) -> Result<(), BoxError> {
    let Carried { events, call, .. } = Carried::new(batch.events);
    let mut pause = PAUSES.0;
    loop {
        let attempt = attempt(&events, &inventory, &ctx).instrument(call.clone());
        match attempt.await {
            Ok(outcomes) => {
                settle(&batch.pool, &outcomes).await?;
                batch.delivered.store(true, Ordering::Release);
                return Ok(());
            }
            Err(error) => tracing::warn!(%error, "inventory was not told; trying again"),
        }
        tokio::select! {
            biased;
            () = ctx.draining() => return Ok(()),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
        }
    }
}

/// Events, each with a span of its way in the trace that it comes of.
struct Carried {
    events: Vec<Event>,
    /// That of the calls: of one event alone its own.
    call: Span,
    /// They end with the way.
    _spans: Vec<Span>,
}

impl Carried {
    fn new(mut events: Vec<Event>) -> Self {
        let mut spans = Vec::new();
        for event in &mut events {
            let span = tracing::info_span!("carry", otel.kind = "producer", order = event.order);
            let span = event.continued_by(span);
            event.trace = span.trace_context().map(|span| span.to_traceparent());
            spans.push(span);
        }
        let call = match &spans[..] {
            [one] => one.clone(),
            many => {
                let batch = tracing::info_span!("carry_batch", events = many.len());
                let contexts = many.iter().filter_map(Span::trace_context);
                contexts.for_each(|context| batch.link_to(&context));
                batch
            }
        };
        Self {
            events,
            call,
            _spans: spans,
        }
    }
}

async fn attempt(
    events: &[Event],
    inventory: &Inventory,
    ctx: &Context,
) -> Result<Vec<Outcome>, TellError> {
    let ctx = ctx.with_timeout(ATTEMPT);
    let mut headers = axum::http::HeaderMap::new();
    ctx.propagate(&mut headers);
    ctx.run(inventory.tell(events, headers)).await?
}

/// Writes down what inventory said. Doing it twice changes nothing.
async fn settle(pool: &AnyPool, outcomes: &[Outcome]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for Outcome { order, stock } in outcomes {
        let update = match stock {
            Stock::Reserved => {
                "UPDATE orders SET status = 'reserved' WHERE id = $1 AND status = 'placed'"
            }
            Stock::Refused => {
                "UPDATE orders SET status = 'refused' WHERE id = $1 AND status = 'placed'"
            }
            Stock::Released | Stock::None => continue,
        };
        sqlx::query(update)
            .bind(order)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
