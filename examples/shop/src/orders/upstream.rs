//! Calls the inventory service.
//!
//! Never decides whether to call again: the events bear ids, so whoever calls may.

use std::str::FromStr;

use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sundown::Cancelled;
use sundown_telemetry::{ClientLayer, ClientService};
use thiserror::Error;
use tower::{Layer as _, ServiceExt as _};

use crate::event::{Event, Outcome};

/// Where the inventory service is, such as `http://127.0.0.1:8081`.
#[derive(Debug, Clone)]
pub(crate) struct InventoryUrl {
    events: Uri,
}

/// Why a URL names no inventory service.
#[derive(Debug, Error)]
#[error("write http://HOST:PORT")]
pub(crate) struct InventoryUrlError;

impl FromStr for InventoryUrl {
    type Err = InventoryUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let authority = url.strip_prefix("http://").ok_or(InventoryUrlError)?;
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority.trim_end_matches('/'))
            .path_and_query("/events");
        let events = uri.build().map_err(|_| InventoryUrlError)?;
        Ok(Self { events })
    }
}

/// Why inventory was not told, or did not understand.
#[derive(Debug, Error)]
pub(crate) enum TellError {
    #[error("could not reach inventory: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("inventory broke off its answer: {0}")]
    Cut(#[from] hyper::Error),
    #[error("inventory answered {0}")]
    Refused(StatusCode),
    #[error("could not understand inventory: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("gave up on inventory: {0}")]
    GaveUp(#[from] Cancelled),
}

/// A client of the inventory service; clones share its connections.
#[derive(Clone)]
pub(crate) struct Inventory {
    client: ClientService<Client<HttpConnector, Full<Bytes>>>,
    events: Uri,
}

impl Inventory {
    /// `layer` tells of each call.
    pub(crate) fn at(url: &InventoryUrl, layer: &ClientLayer) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            client: layer.layer(client),
            events: url.events.clone(),
        }
    }

    /// Tells it of events, in their order, and returns what came of each.
    pub(crate) async fn tell(
        &self,
        events: &[Event],
        headers: HeaderMap,
    ) -> Result<Vec<Outcome>, TellError> {
        let mut request = Request::new(Full::from(serde_json::to_vec(events)?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.events.clone();
        *request.headers_mut() = headers;
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let answer = self.client.clone().oneshot(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(TellError::Refused(answer.status()));
        }
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}
