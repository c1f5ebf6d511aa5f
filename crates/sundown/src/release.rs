//! Resources that a stop releases by one line.

use std::future::Future;

use crate::error::BoxError;

/// Something that is closed, flushed or given back after everything has drained.
///
/// With the `sqlx` feature every `sqlx::Pool` is one: `.release("orders-db", pool.clone())`.
pub trait Release: Send + 'static {
    /// Releases it; an error is reported, and the next release runs.
    fn release(self) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Waits until every connection is given back and closed.
#[cfg(feature = "sqlx")]
impl<DB: sqlx::Database> Release for sqlx::Pool<DB> {
    async fn release(self) -> Result<(), BoxError> {
        self.close().await;
        Ok(())
    }
}
