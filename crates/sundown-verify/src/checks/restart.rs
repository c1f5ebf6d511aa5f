//! A restart that clients do not notice.

mod rolling;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[rolling::CHECK];
