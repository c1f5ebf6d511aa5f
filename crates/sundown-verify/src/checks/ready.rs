//! What probes are told.

mod flips;
mod liveness;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[flips::CHECK, liveness::CHECK];
