//! What signals do.

mod busy;
mod exits;
mod first_process;
mod interrupt;
mod second;
mod start_up;
mod status;

use crate::check::Check;
use crate::service::Declared;

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

/// Returns a check as it is where something is declared.
pub(super) fn as_declared(check: &'static Check, declared: &Declared) -> &'static Check {
    static JUDGED: &[Check] = &[
        second::TERMINATED_AS_DECLARED,
        second::INTERRUPTED_AS_DECLARED,
    ];
    let mut judged = JUDGED.iter().filter(|_| declared.second_signal.is_some());
    judged.find(|judged| judged.id == check.id).unwrap_or(check)
}
