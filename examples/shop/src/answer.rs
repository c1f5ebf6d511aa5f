//! How a request that cannot be done is answered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sundown::Cancelled;
use thiserror::Error;

/// Why a request is not done.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("there is no such order")]
    NotFound,
    #[error("another order has this id")]
    Conflict,
    #[error("the body ended early")]
    Body(#[source] axum::Error),
    /// Doing it again is safe: orders and events bear ids.
    #[error("gave up: {0}")]
    Cancelled(#[from] Cancelled),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Cancelled(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let Self::Database(error) = &self {
            tracing::error!(%error, "the database failed");
        }
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
