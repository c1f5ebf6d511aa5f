//! Makes connections for clients of any protocol, or the evidence of why there is none.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::channel::{Channel, Endpoint};
use crate::outcome::{End, Evidence, Protocol, Sent};
use crate::tcp::{Look, TcpState, Window, connect, end_of_connect};
use crate::timeline::Span;

/// Makes a connection over which HTTP can be spoken, or the evidence of why there is none.
pub(crate) async fn open(
    target: Endpoint,
    window: Window,
    limit: Duration,
    protocol: Protocol,
) -> Result<Channel, Unmade> {
    let from = Instant::now();
    let mut channel = dial(target, window, limit, protocol).await?;
    let left = limit.saturating_sub(from.elapsed());
    let (end, error) = match timeout(left, channel.shake_hands(protocol)).await {
        Ok(Ok(())) => return Ok(channel),
        Ok(Err(error)) => (end_of_handshake(&error), error),
        Err(_) => (End::Hung, io::ErrorKind::TimedOut.into()),
    };
    let state = Some(Look::at(&channel).state);
    Err(Unmade::new(
        from,
        error,
        Evidence {
            before: Some(TcpState::Established),
            after: state,
            finally: state,
            // The server has been asked for a handshake, which comes before the head.
            sent: Sent::PartOfHead,
            ..Evidence::of_nothing(protocol, end)
        },
    ))
}

/// Makes a TCP connection, or the evidence of why there is none.
pub(crate) async fn dial(
    target: Endpoint,
    window: Window,
    limit: Duration,
    protocol: Protocol,
) -> Result<Channel, Unmade> {
    let from = Instant::now();
    let (end, error) = match timeout(limit, connect(target.address, window)).await {
        Ok(Ok(stream)) => return Ok(Channel::over(stream, target, protocol)),
        Ok(Err(error)) => (end_of_connect(&error), error),
        Err(_) => (End::Hung, io::ErrorKind::TimedOut.into()),
    };
    Err(Unmade::new(
        from,
        error,
        Evidence::of_nothing(protocol, end),
    ))
}

fn end_of_handshake(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => End::Eof,
        io::ErrorKind::InvalidData => End::Garbled,
        io::ErrorKind::TimedOut => End::Hung,
        _ => End::Reset,
    }
}

impl Unmade {
    pub(crate) fn new(from: Instant, error: io::Error, evidence: Evidence) -> Self {
        let to = Instant::now();
        Self {
            evidence,
            span: Span { from, to },
            error,
        }
    }
}

/// Means that a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not connect")]
pub struct Unmade {
    /// What to judge the request by that was to be sent.
    pub evidence: Evidence,
    /// When the connect began and failed.
    pub span: Span,
    /// What the operating system said.
    #[source]
    pub error: io::Error,
}
