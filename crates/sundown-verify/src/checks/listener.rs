//! What becomes of those who come when the listener closes.

mod backlog;
mod lame_duck;
mod late;
mod stalled;
mod zombie;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[
    backlog::CHECK,
    stalled::CHECK,
    zombie::CHECK,
    late::CHECK,
    lame_duck::CHECK,
];
