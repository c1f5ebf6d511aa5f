//! What is left of the data.

mod ledger;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[ledger::CHECK];
