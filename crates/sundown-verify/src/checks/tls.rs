//! What TLS adds to the end of a connection, and to its beginning.

mod close_notify;
mod handshake;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[close_notify::CHECK, handshake::CHECK];
