//! What signals do.

mod busy;
mod exits;
mod first_process;
mod interrupt;
mod second;
mod start_up;
mod status;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[
    exits::CHECK,
    status::CHECK,
    interrupt::CHECK,
    second::TERMINATED,
    second::INTERRUPTED,
    start_up::CHECK,
    first_process::CHECK,
    busy::CHECK,
];
