//! Pulls items from a source, handles them with bounded concurrency, acknowledges them in order.
//!
//! On draining it stops pulling, finishes what it took, acknowledges, flushes and ends. Never
//! drops an item it took unless the drain is cut off: then the item was not acknowledged.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio_util::task::AbortOnDropHandle;

use super::acknowledge::{Acknowledge, Ledger};
use crate::context::Context;
use crate::error::BoxError;
use crate::hooks::panic_text;

/// One item and what acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<R, T> {
    /// Handed back to the source once the item was handled: an id, a tag, an offset.
    pub receipt: R,
    /// The item.
    pub item: T,
}

/// What a pull gives: a batch, in order.
pub type Pulled<R, T> = Result<Vec<Delivery<R, T>>, BoxError>;

/// Where a consumer gets its items: a queue, a log, an outbox table.
pub trait Source: Send + 'static {
    /// What is handled.
    type Item: Send + 'static;
    /// What acknowledges an item.
    type Receipt: Send + 'static;

    /// Waits for the next items. After an error of any method, pulling begins again at the first
    /// item that was not acknowledged.
    ///
    /// # Errors
    /// Ends this run of the consumer; its worker's policy decides what then.
    ///
    /// # Cancel safety
    /// Must lose nothing when the future is dropped: it is, whenever an item is done.
    fn pull(&mut self) -> impl Future<Output = Pulled<Self::Receipt, Self::Item>> + Send;

    /// Acknowledges handled items, in the order in which they were pulled. In
    /// [`Acknowledge::Position`] mode the one receipt stands for all before it.
    ///
    /// # Errors
    /// As for [`pull`](Self::pull).
    fn acknowledge(
        &mut self,
        receipts: Vec<Self::Receipt>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Makes acknowledgements that are still buffered take effect. The last call of every run: what
    /// is pulled after it begins again at the first item that was not acknowledged.
    ///
    /// # Errors
    /// Reported; the drain goes on.
    fn flush(&mut self) -> impl Future<Output = Result<(), BoxError>> + Send {
        async { Ok(()) }
    }
}

type Handled = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A source, a handler and how they are put together; run it as a
/// [`Worker::consumer`](crate::Worker::consumer).
///
/// A handler that fails leaves its item unacknowledged: what was pulled is finished, then the run
/// ends with the error, and the worker's policy decides what then.
#[must_use = "a consumer does nothing until it is a Worker of an App"]
pub struct Consumer<S: Source> {
    source: S,
    handler: Box<dyn FnMut(S::Item, Context) -> Handled + Send>,
    concurrency: usize,
    mode: Acknowledge,
}

impl<S: Source> Consumer<S> {
    /// Handles the items of `source` one at a time, and acknowledges each.
    pub fn new<F, Fut>(source: S, mut handler: F) -> Self
    where
        F: FnMut(S::Item, Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let handler = Box::new(move |item, ctx| Box::pin(handler(item, ctx)) as Handled);
        Self {
            source,
            handler,
            concurrency: 1,
            mode: Acknowledge::default(),
        }
    }

    /// How many items are handled at a time; at least 1.
    pub fn concurrency(mut self, items: usize) -> Self {
        self.concurrency = items.max(1);
        self
    }

    /// How items are acknowledged.
    pub fn acknowledge(mut self, mode: Acknowledge) -> Self {
        self.mode = mode;
        self
    }

    /// Consumes until draining, or until something fails.
    pub(super) async fn run(&mut self, ctx: &Context) -> Result<(), BoxError> {
        let ended = self.consume(ctx).await;
        let flushed = self.source.flush().await;
        ended.and(flushed)
    }

    async fn consume(&mut self, ctx: &Context) -> Result<(), BoxError> {
        let mut ledger = Ledger::new(self.mode);
        let mut waiting = VecDeque::new();
        let mut running = FuturesOrdered::new();
        let mut failure: Option<BoxError> = None;
        let mut pulling = true;
        loop {
            while running.len() < self.concurrency
                && let Some(delivery) = waiting.pop_front()
            {
                running.push_back(self.handle(delivery, ctx));
            }
            if !pulling && running.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            tokio::select! {
                biased;
                () = ctx.draining(), if pulling => pulling = false,
                Some((receipt, result)) = running.next(), if !running.is_empty() => {
                    let receipts = ledger.settled(receipt, result.is_ok());
                    if let Err(error) = result {
                        failure.get_or_insert(error);
                        pulling = false;
                    }
                    if !receipts.is_empty() {
                        self.source.acknowledge(receipts).await?;
                    }
                }
                pulled = self.source.pull(), if pulling && waiting.is_empty() && running.len() < self.concurrency => {
                    match pulled {
                        Ok(batch) => {
                            ledger.pulled(batch.len());
                            waiting.extend(batch);
                        }
                        Err(error) => {
                            failure.get_or_insert(error);
                            pulling = false;
                        }
                    }
                    // A source with nothing that does not wait must not starve the others.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn handle(
        &mut self,
        delivery: Delivery<S::Receipt, S::Item>,
        ctx: &Context,
    ) -> impl Future<Output = (S::Receipt, Result<(), BoxError>)> + Send + use<S> {
        let Delivery { receipt, item } = delivery;
        let task = AbortOnDropHandle::new(tokio::spawn((self.handler)(item, ctx.clone())));
        async move {
            let result = task
                .await
                .unwrap_or_else(|join| Err(panic_text(join).into()));
            (receipt, result)
        }
    }
}
