//! The end of a response that would go on: when it is due, where in the body it may be, and what is said
//! last.
//!
//! Nobody waits for it: the reaper wakes whoever asked for more of a body, as it does all else.

use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::records::{Format, Records};
use super::registry::Connection;
use super::requests::Ticket;
use crate::traffic::Traffic;

/// gRPC's status for "try another one" (gRPC over HTTP/2, Responses).
const UNAVAILABLE: &str = "14";

const WHY: &str = "the service is stopping";

/// How one response is to part from its client.
pub(super) struct Parting {
    traffic: Traffic,
    due: bool,
    /// `None` for a body whose records nobody knows: it may end nowhere. Boxed: few bodies have them.
    records: Option<Box<Records>>,
}

/// How a body goes on.
pub(super) enum Course {
    /// As its owner wants.
    On,
    /// It ends here, in order, with this as the last frame.
    Ends(Option<Frame<Bytes>>),
    /// It ends where none of its kind may: the client has to see that.
    Breaks,
}

impl Parting {
    /// Chooses by what the response's head declares.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let format = Format::declared(headers);
        Self {
            traffic: match format {
                Some(Format::Grpc) => Traffic::Grpc,
                Some(Format::Events | Format::Lines) => Traffic::Records,
                None => Traffic::Stream,
            },
            due: false,
            records: format.map(|format| Box::new(Records::new(format))),
        }
    }

    /// Says how the body goes on, before more of it is asked for.
    pub(super) fn course(&mut self, connection: &Connection) -> Course {
        self.due = self.due || connection.is_to_leave(self.traffic);
        match &self.records {
            _ if !self.due => Course::On,
            None => Course::Breaks,
            Some(records) if records.is_at_boundary() => {
                Course::Ends(last_frame(records.format(), connection.limits.event_retry))
            }
            Some(_) => Course::On,
        }
    }

    /// Lets whoever asked for more be woken when the end is due; true when it is by now.
    pub(super) fn wait(&self, connection: &Connection, ticket: Ticket, cx: &Context<'_>) -> bool {
        !self.due && connection.waits_to_leave(ticket, self.traffic, cx.waker())
    }

    /// Takes note of bytes that are to leave; once the end is due, of no more than the record's rest.
    pub(super) fn pass(&mut self, data: &mut Bytes) {
        match &mut self.records {
            None => {}
            Some(records) if self.due => {
                let rest = records.pass_rest(data);
                data.truncate(rest);
            }
            Some(records) => records.pass(data),
        }
    }
}

fn last_frame(format: Format, retry: Option<Duration>) -> Option<Frame<Bytes>> {
    match (format, retry) {
        (Format::Events, Some(retry)) => {
            let retry = format!("retry: {}\n\n", retry.as_millis());
            Some(Frame::data(retry.into()))
        }
        (Format::Grpc, _) => Some(Frame::trailers(unavailable())),
        (Format::Events | Format::Lines, _) => None,
    }
}

/// The status of a call that was not finished.
pub(super) fn unavailable() -> HeaderMap {
    let status = [("grpc-status", UNAVAILABLE), ("grpc-message", WHY)];
    let status = status.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    status.into_iter().collect()
}
