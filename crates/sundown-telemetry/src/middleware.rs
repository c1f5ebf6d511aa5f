//! Layers of tower that make spans of requests, by OpenTelemetry's semantic conventions for HTTP (1.37): of those that
//! are served, and of those that are made.

mod attributes;
mod body;
mod client;
mod open;
mod route;
mod server;

pub use self::body::TracedBody;
pub use self::client::{ClientLayer, ClientService};
pub use self::server::{ServerLayer, ServerService};
