//! How long a stop may take.

mod endless;
mod stream;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[endless::CHECK, stream::CHECK];
