//! Scripted servers, a terminal and a finder of binaries, for the tests of this workspace.
//!
//! The promise: a [`Scripted`] server does to each connection exactly what its script says, so
//! that a test can produce any loss on purpose. Never sleeps to wait for something, and never
//! leaves a thread behind: a server that is dropped closes its listener and its connections.

mod acceptor;
mod binary;
#[cfg(feature = "collector")]
mod collector;
mod contract;
pub mod frames;
mod gate;
mod memory;
pub mod metrics;
mod scripted;
mod socket;
mod terminal;

pub use binary::bin_path;
#[cfg(feature = "collector")]
pub use collector::{Collector, Mood, Received, attribute};
pub use contract::Contract;
pub use gate::Gate;
pub use memory::Memory;
pub use scripted::{Scripted, Step, Unaccepted};
pub use socket::{close_with_reset, may_attach_filters};
pub use terminal::Terminal;
