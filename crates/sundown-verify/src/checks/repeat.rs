//! One stop after the other.

mod stable;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[stable::CHECK];
