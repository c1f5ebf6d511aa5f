//! What is left of the process.

mod delivery;
mod leaked_listener;
mod orphans;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[orphans::CHECK, leaked_listener::CHECK, delivery::CHECK];
