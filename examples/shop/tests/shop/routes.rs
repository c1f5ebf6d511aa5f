//! What the services answer.

use axum::http::StatusCode;
use serde_json::json;

use crate::harness::{Databases, Service, Way, address};

async fn an_order_is_placed_reserved_and_cancelled(way: Way, name: &str) {
    let databases = Databases::new(name);
    let inventory = Service::inventory(way, &databases, address()).await;
    let orders = Service::orders(way, &databases, inventory.addr).await;

    let tea = json!({ "id": "first", "item": "tea", "quantity": 3 });
    let (status, placed) = orders.post("/orders", tea.clone()).await;
    assert_eq!(
        (status, &placed["id"]),
        (StatusCode::CREATED, &json!("first"))
    );
    let (status, again) = orders.post("/orders", tea).await;
    assert_eq!((status, &again["quantity"]), (StatusCode::OK, &json!(3)));
    let other = json!({ "id": "first", "item": "tea", "quantity": 4 });
    assert_eq!(orders.post("/orders", other).await.0, StatusCode::CONFLICT);

    reserved(&inventory, 999_997).await;
    assert_eq!(inventory.get("/reservations").await[0]["order_id"], "first");

    let (status, cancelled) = orders.delete("/orders/first").await;
    assert_eq!(
        (status, &cancelled["status"]),
        (StatusCode::OK, &json!("cancelled"))
    );
    assert_eq!(orders.delete("/orders/first").await.0, StatusCode::OK);
    assert_eq!(
        orders.delete("/orders/nobody's").await.0,
        StatusCode::NOT_FOUND
    );
    reserved(&inventory, 1_000_000).await;

    let listed = orders.get("/orders").await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(orders.get("/orders/first").await, listed[0]);

    orders.stop().await;
    inventory.stop().await;
    let audit = databases.audit().await;
    assert!(audit.is_settled(), "{audit:?}");
    assert_eq!(
        (audit.orders, audit.cancelled, audit.reservations),
        (1, 1, 0)
    );
}

/// Waits until this much tea is available.
async fn reserved(inventory: &Service, available: i64) {
    let mut stock = json!([]);
    for _ in 0..12_000 {
        stock = inventory.get("/stock").await;
        if stock[0]["available"] == available {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: a pause between two looks, bounded by the loop
    }
    panic!("{available} expected: {stock}");
}

#[tokio::test]
async fn an_order_is_reserved_and_released_through_the_outbox() {
    an_order_is_placed_reserved_and_cancelled(Way::Sundown, "routes").await;
}

#[tokio::test]
async fn the_naive_shop_does_the_same_while_nothing_goes_wrong() {
    an_order_is_placed_reserved_and_cancelled(Way::Naive, "routes-naive").await;
}

#[tokio::test]
async fn an_order_beyond_the_stock_is_refused_and_says_so() {
    let databases = Databases::new("refused");
    let inventory = Service::inventory(Way::Sundown, &databases, address()).await;
    let orders = Service::orders(Way::Sundown, &databases, inventory.addr).await;
    let greed = json!({ "id": "greed", "item": "tea", "quantity": 1_000_001 });
    assert_eq!(orders.post("/orders", greed).await.0, StatusCode::CREATED);
    orders.outbox_is_empty().await;
    assert_eq!(orders.get("/orders/greed").await["status"], "refused");

    for (wish, status) in [
        (
            json!({ "item": "tea", "quantity": 0 }),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            json!({ "item": "", "quantity": 1 }),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            json!({ "id": "", "item": "tea", "quantity": 1 }),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (json!({ "item": "tea", "quantity": 1 }), StatusCode::CREATED),
    ] {
        assert_eq!(
            orders.post("/orders", wish.clone()).await.0,
            status,
            "{wish}"
        );
    }
    orders.outbox_is_empty().await;
    orders.stop().await;
    inventory.stop().await;
    let audit = databases.audit().await;
    assert!(audit.is_settled(), "{audit:?}");
    assert_eq!((audit.orders, audit.refused, audit.reservations), (2, 1, 1));
}
