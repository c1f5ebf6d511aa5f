//! How long a stop may take.

mod endless;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[endless::CHECK];
