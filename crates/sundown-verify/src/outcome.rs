//! Decides what happened to a request, from what its client saw on the wire.
//!
//! The promise: one pure function, [`judge`], turns [`Evidence`] into one [`Outcome`]. The rule
//! behind it: a request is *lost* when the server had its bytes, or had promised to take them,
//! and no answer came. It is *declined* when the client can know that the server never acted on
//! it, and may safely ask again. Never looks at a socket, never reads a clock.

use std::fmt;

use serde::Serialize;

use crate::tcp::TcpState;

/// Says how one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole response came, and it was not a refusal or a server error.
    Answered {
        /// The status of the response.
        status: u16,
    },
    /// The server did not act on the request, and the client can tell.
    Declined(Declined),
    /// The server took the request, or could have, and gave no answer.
    Lost(Loss),
    /// Our own side failed before anything was sent (no port, no descriptor): says nothing about
    /// the server.
    LocalError,
}

/// Names the ways in which a server turns a request down without losing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Declined {
    /// The connect was refused: nobody listens.
    Refused,
    /// An idle or silent connection was already closed when we came to write on it.
    IdleClosed,
    /// The server's FIN and our first bytes passed each other: it came after we had looked, and it
    /// acknowledges none of them. The race HTTP/1.1 leaves open on an idle connection (RFC 9112
    /// §9.5).
    Crossed,
    /// A pipelined request behind a response that said `Connection: close` (RFC 9112 §9.6), or an
    /// HTTP/2 stream above the GOAWAY's last, or refused (RFC 9113 §6.8, §8.7).
    Unprocessed,
    /// An answer of 503, or 408, that also closes the connection: an explicit "not here".
    Unavailable,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::IdleClosed => "closed while idle",
            Self::Crossed => "crossed the server's FIN",
            Self::Unprocessed => "told to be unprocessed",
            Self::Unavailable => "503 or 408, and closed",
        })
    }
}

/// Names the ways in which a request is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// A new connection was reset before the first byte of an answer: what happens to a listener's
    /// queue when the listener is closed.
    BacklogReset,
    /// A connection that had served before was reset without an answer, or an HTTP/2 stream was.
    Reset,
    /// The connection ended in order, without an answer, after the server had our bytes.
    Eof,
    /// The answer began and was cut.
    Truncated,
    /// The connection broke while the body was still being sent, and there was no answer.
    UploadCut,
    /// A 5xx that is not [`Declined::Unavailable`].
    ServerError,
    /// What came back is not HTTP.
    Garbled,
    /// No whole answer within the limit.
    Hung,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BacklogReset => "reset in the backlog",
            Self::Reset => "reset without an answer",
            Self::Eof => "closed without an answer",
            Self::Truncated => "answer cut",
            Self::UploadCut => "upload cut",
            Self::ServerError => "answered 5xx",
            Self::Garbled => "answered by what is not HTTP",
            Self::Hung => "hung",
        })
    }
}

/// Holds everything [`judge`] needs to know about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The protocol spoken: HTTP/2 has GOAWAY, so it has no excuse for crossing bytes.
    pub protocol: Protocol,
    /// What the connection had been used for before.
    pub reuse: Reuse,
    /// The connection's state just before the first byte was written; `None` if it was never made.
    pub before: Option<TcpState>,
    /// The state just after the first write; `None` if nothing was written. It tells no order: the
    /// server may have read and closed before we could look.
    pub after: Option<TcpState>,
    /// The state when the exchange ended: for the description, not for the decision.
    pub finally: Option<TcpState>,
    /// How much of the request the kernel took from us.
    pub sent: Sent,
    /// Whether the server's kernel had taken any of the request when the connection ended.
    pub taken: Taken,
    /// How much of the response we saw.
    pub seen: Seen,
    /// Whether the protocol itself says that the request was not processed.
    pub disclaimed: Disclaimed,
    /// What ended the exchange.
    pub end: End,
}

/// Names the protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Says what a connection had been used for before this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Made for this request, and written on at once.
    Fresh,
    /// Made earlier and silent since.
    Preconnected,
    /// The server has spoken on it: an answer, or HTTP/2's preface.
    Reused,
}

/// Says how much of a request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Not a byte.
    Nothing,
    /// Not a byte, but a handshake of TLS was under way.
    Handshake,
    /// Some of the head.
    PartOfHead,
    /// The head and some of the body.
    PartOfBody,
    /// All of it.
    All,
}

/// Says whether the server's kernel had taken any of a request when the connection ended, told by
/// the acknowledgement that its FIN carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The connection did not end, or nobody looked.
    Unknown,
    /// Not a byte: the FIN was sent before any of ours arrived.
    Nothing,
    /// At least a byte.
    Some,
}

/// Says how much of a response was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not a byte.
    Nothing,
    /// Some of it.
    Part,
    /// All of it.
    Whole {
        /// Its status.
        status: u16,
        /// What it says about the connection.
        persistence: Persistence,
    },
}

/// Says what a response promises about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// More requests are welcome.
    KeepAlive,
    /// This was the last one.
    Close,
}

/// Says whether the protocol told us that a request was not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclaimed {
    /// It did not.
    No,
    /// An earlier response on this connection said `Connection: close`.
    BehindClose,
    /// GOAWAY named a last stream below ours.
    AboveGoAway,
    /// The stream was reset with REFUSED_STREAM.
    RefusedStream,
}

/// Says what ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The response was complete.
    Answer,
    /// The server's FIN.
    Eof,
    /// A reset, of the connection or of the stream, or a write that failed for it.
    Reset,
    /// The limit passed.
    Hung,
    /// The connect was refused.
    Refused,
    /// Our own side could not make the connection.
    Local,
    /// Bytes that are not HTTP.
    Garbled,
}

/// Decides what became of a request.
///
/// ```
/// use sundown_verify::outcome::*;
/// use sundown_verify::tcp::TcpState::Established;
///
/// let cut_while_idle = Evidence {
///     protocol: Protocol::Http1,
///     reuse: Reuse::Reused,
///     before: Some(Established),
///     after: Some(Established),
///     finally: None,
///     sent: Sent::All,
///     taken: Taken::Unknown,
///     seen: Seen::Nothing,
///     disclaimed: Disclaimed::No,
///     end: End::Reset,
/// };
/// assert_eq!(judge(&cut_while_idle), Outcome::Lost(Loss::Reset));
/// ```
pub fn judge(evidence: &Evidence) -> Outcome {
    match (evidence.seen, evidence.end) {
        (_, End::Local) => Outcome::LocalError,
        (_, End::Refused) => Outcome::Declined(Declined::Refused),
        (
            Seen::Whole {
                status,
                persistence,
            },
            _,
        ) => answered(status, persistence),
        (Seen::Nothing, _) if evidence.disclaimed != Disclaimed::No => {
            Outcome::Declined(Declined::Unprocessed)
        }
        (_, End::Hung) => Outcome::Lost(Loss::Hung),
        (_, End::Garbled) => Outcome::Lost(Loss::Garbled),
        (Seen::Part, _) => Outcome::Lost(Loss::Truncated),
        (Seen::Nothing, _) => unanswered(evidence),
    }
}

fn answered(status: u16, persistence: Persistence) -> Outcome {
    match (status, persistence) {
        (408 | 503, Persistence::Close) => Outcome::Declined(Declined::Unavailable),
        (500..=599, _) => Outcome::Lost(Loss::ServerError),
        _ => Outcome::Answered { status },
    }
}

fn unanswered(evidence: &Evidence) -> Outcome {
    if evidence.sent == Sent::Nothing || evidence.before.is_none_or(TcpState::peer_has_closed) {
        return unwritten(evidence);
    }
    if crossed(evidence) {
        return Outcome::Declined(Declined::Crossed);
    }
    Outcome::Lost(match (evidence.sent, evidence.end, evidence.reuse) {
        (Sent::PartOfBody, _, _) => Loss::UploadCut,
        (_, End::Eof, _) => Loss::Eof,
        (_, _, Reuse::Reused) => Loss::Reset,
        (_, _, Reuse::Fresh | Reuse::Preconnected) => Loss::BacklogReset,
    })
}

/// Judges a request of which no byte was written, because the connection was gone.
fn unwritten(evidence: &Evidence) -> Outcome {
    let reset = evidence.end == End::Reset || evidence.before == Some(TcpState::Close);
    match evidence.reuse {
        // The client connected in order to ask now, was let in by the kernel, and was thrown out:
        // it is by luck alone that its bytes were not yet on the way.
        Reuse::Fresh if reset => Outcome::Lost(Loss::BacklogReset),
        _ => Outcome::Declined(Declined::IdleClosed),
    }
}

/// Tells whether the server's FIN was on its way while our first bytes were.
///
/// A reset without a FIN is no crossing: the kernel answers a close with unread bytes by RST, so
/// the server had the request and threw it away. A server that half-closes a connection it has not
/// spoken on may be blamed wrongly, because the kernel acknowledges the first bytes of a new
/// connection at once, also behind a FIN.
fn crossed(evidence: &Evidence) -> bool {
    let fin = evidence.end == End::Eof || evidence.after == Some(TcpState::CloseWait);
    evidence.protocol == Protocol::Http1 && fin && evidence.taken == Taken::Nothing
}

impl Evidence {
    /// Of a request for which there is no connection.
    pub(crate) fn of_nothing(protocol: Protocol, end: End) -> Self {
        Self {
            protocol,
            reuse: Reuse::Fresh,
            before: None,
            after: None,
            finally: None,
            sent: Sent::Nothing,
            taken: Taken::Unknown,
            seen: Seen::Nothing,
            disclaimed: Disclaimed::No,
            end,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |state: Option<TcpState>| state.map_or("unknown", TcpState::name);
        write!(
            f,
            "{:?} connection, {} before the write, {} after it, {} at the end; sent {:?}, saw {:?}",
            self.reuse,
            state(self.before),
            state(self.after),
            state(self.finally),
            self.sent,
            self.seen,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcpState::{Close, CloseWait, Established};

    /// A request fully written on a reused, healthy connection, and then silence and FIN.
    const BASE: Evidence = Evidence {
        protocol: Protocol::Http1,
        reuse: Reuse::Reused,
        before: Some(Established),
        after: Some(Established),
        finally: Some(CloseWait),
        sent: Sent::All,
        taken: Taken::Some,
        seen: Seen::Nothing,
        disclaimed: Disclaimed::No,
        end: End::Eof,
    };
    const UNMADE: Evidence = Evidence {
        reuse: Reuse::Fresh,
        before: None,
        after: None,
        finally: None,
        sent: Sent::Nothing,
        ..BASE
    };

    fn whole(status: u16, persistence: Persistence) -> Evidence {
        Evidence {
            seen: Seen::Whole {
                status,
                persistence,
            },
            end: End::Answer,
            ..BASE
        }
    }

    #[track_caller]
    fn check(cases: &[(&str, Evidence, Outcome)]) {
        for (name, evidence, expected) in cases {
            assert_eq!(judge(evidence), *expected, "{name}: {evidence:?}");
        }
    }

    #[test]
    fn a_whole_response_is_judged_by_its_status() {
        use Persistence::{Close, KeepAlive};
        let unavailable = Outcome::Declined(Declined::Unavailable);
        let error = Outcome::Lost(Loss::ServerError);
        check(&[
            (
                "ok",
                whole(200, KeepAlive),
                Outcome::Answered { status: 200 },
            ),
            (
                "ok and close",
                whole(200, Close),
                Outcome::Answered { status: 200 },
            ),
            (
                "not found",
                whole(404, KeepAlive),
                Outcome::Answered { status: 404 },
            ),
            ("503 and close", whole(503, Close), unavailable),
            ("408 and close", whole(408, Close), unavailable),
            ("503 and keep", whole(503, KeepAlive), error),
            (
                "408 and keep",
                whole(408, KeepAlive),
                Outcome::Answered { status: 408 },
            ),
            ("500 and close", whole(500, Close), error),
            ("502", whole(502, KeepAlive), error),
        ]);
    }

    #[test]
    fn a_request_the_server_never_took_is_declined() {
        let declined = Outcome::Declined;
        check(&[
            (
                "refused",
                Evidence {
                    end: End::Refused,
                    ..UNMADE
                },
                declined(Declined::Refused),
            ),
            (
                "FIN before the write",
                Evidence {
                    before: Some(CloseWait),
                    after: None,
                    sent: Sent::Nothing,
                    ..BASE
                },
                declined(Declined::IdleClosed),
            ),
            (
                "silent connection reset before the write",
                Evidence {
                    reuse: Reuse::Preconnected,
                    before: Some(Close),
                    after: None,
                    sent: Sent::Nothing,
                    end: End::Reset,
                    ..BASE
                },
                declined(Declined::IdleClosed),
            ),
            (
                "FIN that acknowledges nothing",
                Evidence {
                    taken: Taken::Nothing,
                    ..BASE
                },
                declined(Declined::Crossed),
            ),
            (
                "FIN that acknowledges nothing, then a second write that fails",
                Evidence {
                    after: Some(CloseWait),
                    taken: Taken::Nothing,
                    end: End::Reset,
                    ..BASE
                },
                declined(Declined::Crossed),
            ),
            (
                "behind a close, then reset",
                Evidence {
                    disclaimed: Disclaimed::BehindClose,
                    end: End::Reset,
                    ..BASE
                },
                declined(Declined::Unprocessed),
            ),
            (
                "above GOAWAY",
                Evidence {
                    protocol: Protocol::Http2,
                    disclaimed: Disclaimed::AboveGoAway,
                    end: End::Eof,
                    ..BASE
                },
                declined(Declined::Unprocessed),
            ),
        ]);
    }

    #[test]
    fn a_request_the_server_could_have_taken_is_lost() {
        let lost = Outcome::Lost;
        let reset = Evidence {
            end: End::Reset,
            finally: Some(Close),
            ..BASE
        };
        check(&[
            ("FIN after the write", BASE, lost(Loss::Eof)),
            ("reset of a reused connection", reset, lost(Loss::Reset)),
            (
                "reset so fast that the look after the write saw it, but no FIN",
                Evidence {
                    after: Some(Close),
                    taken: Taken::Nothing,
                    ..reset
                },
                lost(Loss::Reset),
            ),
            (
                "a server so fast that it read and closed before we could look",
                Evidence {
                    after: Some(CloseWait),
                    ..BASE
                },
                lost(Loss::Eof),
            ),
            (
                "reset of a new connection",
                Evidence {
                    reuse: Reuse::Fresh,
                    ..reset
                },
                lost(Loss::BacklogReset),
            ),
            (
                "reset of a silent connection that had just spoken",
                Evidence {
                    reuse: Reuse::Preconnected,
                    ..reset
                },
                lost(Loss::BacklogReset),
            ),
            (
                "reset between connect and write",
                Evidence {
                    reuse: Reuse::Fresh,
                    before: Some(Close),
                    after: None,
                    sent: Sent::Nothing,
                    ..reset
                },
                lost(Loss::BacklogReset),
            ),
            (
                "reset by connect",
                Evidence {
                    end: End::Reset,
                    ..UNMADE
                },
                lost(Loss::BacklogReset),
            ),
            (
                "answer cut",
                Evidence {
                    seen: Seen::Part,
                    ..BASE
                },
                lost(Loss::Truncated),
            ),
            (
                "upload cut by FIN",
                Evidence {
                    sent: Sent::PartOfBody,
                    ..BASE
                },
                lost(Loss::UploadCut),
            ),
            (
                "upload cut by RST",
                Evidence {
                    sent: Sent::PartOfBody,
                    reuse: Reuse::Fresh,
                    ..reset
                },
                lost(Loss::UploadCut),
            ),
            (
                "half a head, then FIN",
                Evidence {
                    sent: Sent::PartOfHead,
                    ..BASE
                },
                lost(Loss::Eof),
            ),
            (
                "silence",
                Evidence {
                    end: End::Hung,
                    ..BASE
                },
                lost(Loss::Hung),
            ),
            (
                "half an answer, then silence",
                Evidence {
                    seen: Seen::Part,
                    end: End::Hung,
                    ..BASE
                },
                lost(Loss::Hung),
            ),
            (
                "not HTTP",
                Evidence {
                    seen: Seen::Part,
                    end: End::Garbled,
                    ..BASE
                },
                lost(Loss::Garbled),
            ),
            (
                "HTTP/2 without GOAWAY has no crossing to excuse it",
                Evidence {
                    protocol: Protocol::Http2,
                    taken: Taken::Nothing,
                    ..BASE
                },
                lost(Loss::Eof),
            ),
        ]);
    }

    #[test]
    fn a_local_error_says_nothing_about_the_server() {
        let evidence = Evidence {
            end: End::Local,
            ..UNMADE
        };
        assert_eq!(judge(&evidence), Outcome::LocalError);
    }
}
