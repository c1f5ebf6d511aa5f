//! The inventory service: applies each event once, however often it arrives.

pub(crate) mod store;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use sqlx::AnyPool;
use sundown::Context;

use crate::answer::Refusal;
use crate::database::{self, DatabaseUrl};
use crate::event::{Event, Outcome};
use crate::pages;
use crate::telemetry::Telemetry;

/// Runs the inventory service until it is stopped.
pub(crate) fn run(telemetry: Telemetry, listen: SocketAddr, database: DatabaseUrl) -> ExitCode {
    let app = telemetry
        .clone()
        .app("inventory")
        .grace(Duration::from_secs(25));
    app.run_with(async move |app| {
        let pool = database::open(&database, store::SCHEMA).await?;
        telemetry.on_this_runtime();
        Ok(app
            .http(listen, telemetry.of_requests(router(pool.clone())))
            .release("inventory-db", pool))
    })
}

fn router(pool: AnyPool) -> Router {
    Router::new()
        .route("/events", post(apply))
        .with_state(pool.clone())
        .merge(pages::inventory(pool))
}

/// Applies a list of events, all of them or, when the caller's deadline passes first, none.
async fn apply(
    State(pool): State<AnyPool>,
    ctx: Context,
    Json(events): Json<Vec<Event>>,
) -> Result<Json<Vec<Outcome>>, Refusal> {
    let outcomes = ctx.run(store::apply(&pool, &events)).await?;
    Ok(Json(outcomes?))
}
