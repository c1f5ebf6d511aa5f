//! What signals do.

mod exits;
mod interrupt;
mod second;
mod start_up;
mod status;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[
    exits::CHECK,
    status::CHECK,
    interrupt::CHECK,
    second::CHECK,
    start_up::CHECK,
];
