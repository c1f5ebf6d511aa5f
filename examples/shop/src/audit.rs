//! Compares what orders and inventory have written, after both have stopped.
//!
//! Changes nothing. Judges by the tables alone, never by what a service says of itself.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;
use sqlx::AnyPool;
use thiserror::Error;

use crate::database::{self, DatabaseUrl, DatabaseUrlError};
use crate::event::Stock;
use crate::inventory::store::{self as inventory, Item, Reservation};
use crate::orders::store::{self as orders, Order, Status};

/// What two databases say of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Audit {
    /// Orders, those that are cancelled included.
    pub orders: usize,
    /// Orders that were cancelled.
    pub cancelled: usize,
    /// Reservations that hold stock.
    pub reservations: usize,
    /// Reservations that were refused for want of stock.
    pub refused: usize,
    /// Orders inventory knows nothing of and never will: nothing in the outbox is about them.
    pub orders_without_stock: usize,
    /// Orders inventory does not know yet: their event waits in the outbox.
    pub orders_awaiting_stock: usize,
    /// Reservations that hold stock for an order that is cancelled or does not exist, with
    /// nothing in the outbox to release it.
    pub stock_without_order: usize,
    /// Items whose stock and reservations do not add up: something was applied twice or by half.
    pub miscounted_items: usize,
    /// Events in the outbox.
    pub outbox_pending: usize,
    #[serde(skip)]
    ids: Ids,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Ids(HashSet<String>);

/// Not one by one: an audit is printed where it fails, and there may be thousands.
impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ids", self.0.len())
    }
}

/// Why two databases could not be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A URL names no database.
    #[error("{url:?} names no database")]
    Url {
        /// What was given.
        url: String,
        /// What would be understood.
        #[source]
        source: DatabaseUrlError,
    },
    /// A database could not be read.
    #[error("could not read {url}")]
    Read {
        /// The database.
        url: String,
        /// What it says.
        #[source]
        source: sqlx::Error,
    },
}

impl Audit {
    /// True when no order is without stock for good, no stock without its order, and every item
    /// is counted right. What waits in the outbox is not lost.
    pub fn is_clean(&self) -> bool {
        (
            self.orders_without_stock,
            self.stock_without_order,
            self.miscounted_items,
        ) == (0, 0, 0)
    }

    /// True when, beyond being clean, nothing waits in the outbox.
    pub fn is_settled(&self) -> bool {
        self.is_clean() && self.outbox_pending == 0
    }

    /// Returns those of the ids whose orders are not there: orders that were acknowledged to a
    /// client and then lost. (None can be there twice: the id is the table's key.)
    pub fn missing_acknowledged<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        ids.into_iter()
            .filter(|id| !self.ids.0.contains(*id))
            .collect()
    }
}

/// Compares the databases of the order and the inventory service, given by the URLs that the
/// services were started with. While they run the answer may be out of date before it is given.
///
/// # Errors
/// A URL that names no database, or a database that cannot be read.
pub async fn audit(orders_url: &str, inventory_url: &str) -> Result<Audit, AuditError> {
    // Inventory first: an order is always written before its stock is reserved, so that even
    // while both run no reservation is seen without its order.
    let (reservations, items) = read(inventory_url, async |pool| {
        let reservations = inventory::reservations(&pool, u32::MAX).await?;
        Ok((reservations, inventory::items(&pool).await?))
    })
    .await?;
    let (orders, waiting) = read(orders_url, async |pool| {
        let orders = orders::list(&pool, u32::MAX).await?;
        let query = sqlx::query_scalar("SELECT order_id FROM outbox");
        Ok((orders, query.fetch_all(&pool).await?))
    })
    .await?;
    Ok(compare(&orders, &waiting, &reservations, &items))
}

async fn read<T>(
    url: &str,
    look: impl AsyncFnOnce(AnyPool) -> Result<T, sqlx::Error>,
) -> Result<T, AuditError> {
    let parsed: DatabaseUrl = url.parse().map_err(|source| AuditError::Url {
        url: url.to_owned(),
        source,
    })?;
    let seen = async {
        let pool = database::look_into(&parsed).await?;
        let seen = look(pool.clone()).await;
        pool.close().await;
        seen
    };
    seen.await.map_err(|source| AuditError::Read {
        url: url.to_owned(),
        source,
    })
}

/// `waiting`: for each event in the outbox, the order it is about.
fn compare(
    orders: &[Order],
    waiting: &[String],
    reservations: &[Reservation],
    items: &[Item],
) -> Audit {
    let outbox: HashSet<&str> = waiting.iter().map(String::as_str).collect();
    let known: HashSet<&str> = reservations.iter().map(|it| it.order_id.as_str()).collect();
    let open = |order: &&Order| order.status != Status::Cancelled;
    let wanted: HashSet<&str> = orders
        .iter()
        .filter(open)
        .map(|it| it.id.as_str())
        .collect();
    let holding = || reservations.iter().filter(|it| it.state == Stock::Reserved);

    let (awaiting, without): (Vec<&str>, Vec<&str>) = wanted
        .difference(&known)
        .partition(|id| outbox.contains(**id));
    let astray = holding().map(|it| it.order_id.as_str());
    let astray = astray.filter(|id| !wanted.contains(id) && !outbox.contains(id));
    Audit {
        orders: orders.len(),
        cancelled: orders.len() - wanted.len(),
        reservations: holding().count(),
        refused: reservations
            .iter()
            .filter(|it| it.state == Stock::Refused)
            .count(),
        orders_without_stock: without.len(),
        orders_awaiting_stock: awaiting.len(),
        stock_without_order: astray.count(),
        miscounted_items: miscounted(reservations, items),
        outbox_pending: waiting.len(),
        ids: Ids(orders.iter().map(|it| it.id.clone()).collect()),
    }
}

fn miscounted(reservations: &[Reservation], items: &[Item]) -> usize {
    let mut held: HashMap<&str, i64> = HashMap::new();
    for reservation in reservations.iter().filter(|it| it.state == Stock::Reserved) {
        *held.entry(&reservation.item).or_default() += reservation.quantity;
    }
    let held_of = |item: &Item| held.get(item.item.as_str()).copied().unwrap_or(0);
    let wrong = items
        .iter()
        .filter(|it| it.available + held_of(it) != inventory::STOCK);
    wrong.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, status: Status) -> Order {
        Order {
            id: id.into(),
            item: "tea".into(),
            quantity: 2,
            status,
        }
    }

    fn reservation(order: &str, state: Stock) -> Reservation {
        Reservation {
            order_id: order.into(),
            item: "tea".into(),
            quantity: 2,
            state,
        }
    }

    fn tea(available: i64) -> Item {
        Item {
            item: "tea".into(),
            available,
        }
    }

    #[test]
    fn what_waits_in_the_outbox_is_not_lost_and_the_rest_is_told_apart() {
        let orders = [
            order("whole", Status::Reserved),
            order("refused", Status::Refused),
            order("waits", Status::Placed),
            order("lost", Status::Placed),
            order("undone", Status::Cancelled),
            order("undoing", Status::Cancelled),
            order("stuck", Status::Cancelled),
        ];
        let reservations = [
            reservation("whole", Stock::Reserved),
            reservation("refused", Stock::Refused),
            reservation("undone", Stock::Released),
            reservation("undoing", Stock::Reserved),
            reservation("stuck", Stock::Reserved),
            reservation("nobody's", Stock::Reserved),
        ];
        let waiting = ["waits".to_owned(), "undoing".to_owned()];
        let audit = compare(
            &orders,
            &waiting,
            &reservations,
            &[tea(inventory::STOCK - 8)],
        );
        assert_eq!((audit.orders, audit.cancelled), (7, 3));
        assert_eq!((audit.reservations, audit.refused), (4, 1));
        assert_eq!(
            (audit.orders_without_stock, audit.orders_awaiting_stock),
            (1, 1)
        );
        assert_eq!(audit.stock_without_order, 2);
        assert_eq!((audit.miscounted_items, audit.outbox_pending), (0, 2));
        assert!(!audit.is_clean());
        assert_eq!(
            audit.missing_acknowledged(["whole", "vanished"]),
            ["vanished"]
        );
    }

    #[test]
    fn an_event_that_was_applied_twice_is_seen_in_the_count() {
        let orders = [order("whole", Status::Reserved)];
        let reservations = [reservation("whole", Stock::Reserved)];
        for (available, miscounted) in [(inventory::STOCK - 2, 0), (inventory::STOCK - 4, 1)] {
            let audit = compare(&orders, &[], &reservations, &[tea(available)]);
            assert_eq!(audit.miscounted_items, miscounted);
            assert_eq!(audit.is_settled(), miscounted == 0);
        }
    }
}
