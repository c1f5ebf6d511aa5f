//! A shop of two services that lose nothing when they are stopped: no order without its stock, no
//! stock without its order, whatever the instant, even that of a SIGKILL.
//!
//! *orders* writes each order and an event about it in one transaction (a transactional outbox); a
//! worker carries the events to *inventory*, which applies each of them once. With `--naive` the
//! same services are written the common way, to show what a stop costs there.
//!
//! An order is never answered before it is committed, and inventory is never called from within a
//! request (but for `--naive`).

mod cli;

mod event;
mod orders;

mod inventory;

mod naive;

mod answer;
mod database;
mod pages;
mod telemetry;

mod audit;

use std::ffi::OsString;
use std::process::ExitCode;

pub use audit::{Audit, AuditError, audit};

/// Runs one of the two services until it is stopped, and returns its exit code.
///
/// `args` are those of `shop`, the program's name first: `shop orders --listen …`. Call it on a
/// thread without a runtime: it makes its own.
///
/// ```no_run
/// let code = shop::run(["shop", "inventory", "--database", "sqlite:inventory.db"]);
/// ```
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    cli::run(args)
}
