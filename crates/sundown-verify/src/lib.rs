//! Proves how a network service stops: real clients, real signals, and an honest count of what
//! happened to every request.
//!
//! The promise: each request a client starts ends in exactly one [`Outcome`], so that
//! `sent = answered + declined + lost` holds, and what the operating system refused *us* is
//! counted apart and never blamed on the server.
//!
//! Nothing here retries, follows a redirect or hides a connection pool: the clients own their
//! bytes, because an HTTP library that silently sends again also silently repairs the count.
//! Nothing here links the library under judgement: what is judged is always another process.

pub mod outcome;
pub mod tally;

pub mod channel;
mod dial;
pub mod plan;
pub mod tcp;

pub mod http1;
pub mod http2;
pub mod websocket;

pub mod held;
pub mod load;
pub mod timeline;

pub mod counters;
mod disposition;
mod listeners;
pub mod private_net;

mod pidfd;
pub mod process;

pub mod attach;
mod subject;
pub mod target;

mod cause;
pub mod check;
pub mod checks;
pub mod service;
pub mod stop;
pub mod suite;

pub use channel::Endpoint;
pub use check::{Check, Level, Verdict};
pub use disposition::{Disposition, name as name_of_signal};
pub use held::Held;
pub use load::Load;
pub use outcome::{Declined, Loss, Outcome};
pub use plan::{Kind, Plan, Request, Requests};
pub use process::{Process, Refuse, Spawn};
pub use service::{Offers, Service};
pub use suite::Suite;
pub use tally::Tally;
pub use target::Target;
pub use timeline::Timeline;
