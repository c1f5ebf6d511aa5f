//! Describes a load: which clients, against what, asking for what.
//!
//! The promise: a [`Plan`] is plain data and small functions, so that a run can be repeated from
//! its seed. Never opens a socket: `load` and `held` do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::channel::Endpoint;
use crate::timeline::Recorder;

/// Says what a load does.
#[derive(Clone)]
pub struct Plan {
    /// Where the server listens.
    pub target: Endpoint,
    /// How many clients of each kind.
    pub clients: Vec<(Kind, usize)>,
    /// What each kind asks for.
    pub requests: Requests,
    /// How long an answer may take before the request counts as hung.
    pub hang_limit: Duration,
    /// What all random pauses derive from.
    pub seed: u64,
    /// Called with every whole answer, before it is counted.
    pub on_answer: Option<OnAnswer>,
    /// Notes when each request began and ended.
    pub recorder: Option<Recorder>,
}

/// Receives a request, the status of its answer, and the first 64 KiB of the answer's body.
pub type OnAnswer = Arc<dyn Fn(&Request, u16, &[u8]) + Send + Sync>;

impl Plan {
    /// Bounds an answer unless the plan says otherwise.
    pub const HANG_LIMIT: Duration = Duration::from_secs(30);

    /// Makes a plan without clients, for the peer contract.
    pub fn against(target: impl Into<Endpoint>) -> Self {
        Self {
            target: target.into(),
            clients: Vec::new(),
            requests: Requests::contract(),
            hang_limit: Self::HANG_LIMIT,
            seed: 0,
            on_answer: None,
            recorder: None,
        }
    }

    /// Adds clients of a kind.
    pub fn with(mut self, kind: Kind, count: usize) -> Self {
        self.clients.push((kind, count));
        self
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("target", &self.target)
            .field("clients", &self.clients)
            .field("hang_limit", &self.hang_limit)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Names the kinds of client; each is a habit by which services lose requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Keeps its connection, and thinks between requests.
    KeepAlive,
    /// Makes a connection for every request.
    NewConnection,
    /// Writes two to four requests at once.
    Pipelined,
    /// Connects, stays silent for a while, then sends one request.
    Silent,
    /// Sends half a head, pauses, sends the rest.
    HalfHead,
    /// Reads a big response slowly.
    SlowReader,
    /// Sends a body slowly.
    SlowUpload,
    /// Asks for what takes the server long.
    Slow,
    /// Keeps up to four streams open on one HTTP/2 connection.
    Http2,
}

impl Kind {
    /// Lists every kind once.
    pub const ALL: [Kind; 9] = [
        Kind::KeepAlive,
        Kind::NewConnection,
        Kind::Pipelined,
        Kind::Silent,
        Kind::HalfHead,
        Kind::SlowReader,
        Kind::SlowUpload,
        Kind::Slow,
        Kind::Http2,
    ];
}

/// Is one request, before it is bytes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The request target: path and query.
    pub path: String,
    /// Headers beside `Host` and `Content-Length`, which the client writes itself.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// A number by which the caller knows the request again.
    pub tag: u64,
}

impl Request {
    /// Makes a GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            tag: 0,
        }
    }

    /// Makes a POST.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(path)
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Sets the number by which the caller knows the request again.
    pub fn tagged(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }
}

/// Builds the requests of each kind of client.
#[derive(Clone)]
pub struct Requests {
    default: Build,
    by_kind: BTreeMap<Kind, Build>,
}

/// Builds a request from a number that is unique within a load.
pub type Build = Arc<dyn Fn(u64) -> Request + Send + Sync>;

impl Requests {
    /// Uses one builder for every kind.
    pub fn every(build: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        Self {
            default: Arc::new(build),
            by_kind: BTreeMap::new(),
        }
    }

    /// Uses another builder for one kind.
    pub fn with(
        mut self,
        kind: Kind,
        build: impl Fn(u64) -> Request + Send + Sync + 'static,
    ) -> Self {
        self.by_kind.insert(kind, Arc::new(build));
        self
    }

    /// Speaks the contract of the peers: `GET /fast`, `GET /slow?ms=300`, `GET /big?mib=16` and
    /// `POST /upload`.
    pub fn contract() -> Self {
        let upload = Bytes::from(vec![b'u'; 64 * 1024]);
        Self::every(|tag| Request::get("/fast").tagged(tag))
            .with(Kind::Slow, |tag| Request::get("/slow?ms=300").tagged(tag))
            .with(Kind::SlowReader, |tag| {
                Request::get("/big?mib=16").tagged(tag)
            })
            .with(Kind::SlowUpload, move |tag| {
                Request::post("/upload", upload.clone()).tagged(tag)
            })
    }

    /// Builds the request with this number.
    pub fn build(&self, kind: Kind, number: u64) -> Request {
        self.by_kind.get(&kind).unwrap_or(&self.default)(number)
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("by_kind", &self.by_kind.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_gives_each_kind_its_path() {
        let offers = Kind::ALL.map(|kind| Requests::contract().build(kind, 7).path);

        assert_eq!(offers[0], "/fast");
        assert_eq!(offers[5], "/big?mib=16");
        assert_eq!(offers[6], "/upload");
        assert_eq!(offers[7], "/slow?ms=300");
    }

    #[test]
    fn a_request_carries_the_number_it_was_built_with() {
        assert_eq!(Requests::contract().build(Kind::SlowUpload, 42).tag, 42);
    }
}
