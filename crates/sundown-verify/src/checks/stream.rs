//! What stays open: streams and WebSockets.

mod grpc;
mod sse;
mod websocket;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[websocket::CHECK, sse::CHECK, grpc::CHECK];
