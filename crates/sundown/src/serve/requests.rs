//! The requests under way on one connection, by name, and how those before them ended.
//!
//! Nothing of a request is kept once it has ended: its target shares memory with hyper's buffer.

use std::sync::Mutex;

use http::Method;
use http::uri::PathAndQuery;

use crate::core::lock;
use crate::report::RequestCounts;

/// What is known of one connection's requests. Its lock is taken by whoever serves the connection,
/// and by a report.
#[derive(Default)]
pub(super) struct Requests(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last_ticket: u32,
    /// The only place that HTTP/1 needs: it has one request at a time.
    first: Option<(Ticket, Named)>,
    more: Vec<(Ticket, Named)>,
    /// The route that ended in an upgrade, and since when. Boxed: few connections have one.
    upgraded: Option<Box<(String, u64)>>,
    counts: RequestCounts,
}

/// Says which request of its connection one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

/// What the report says of a request.
pub(super) struct Named {
    pub(super) method: Method,
    /// Path and query: all of the target that servers are sent, but for CONNECT.
    pub(super) target: Option<PathAndQuery>,
    /// Microseconds of the service's clock.
    pub(super) since: u64,
}

impl Named {
    /// The method and the path without the query, which may hold secrets.
    pub(super) fn route(&self) -> String {
        let path = self.target.as_ref().map_or("*", PathAndQuery::path);
        format!("{} {path}", self.method)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Answered in full, before or during the stop.
    Finished { stopping: bool },
    /// Its client went away.
    Abandoned,
    /// Counted by the report, which names it.
    CutOff,
}

impl Requests {
    pub(super) fn begin(&self, request: Named) -> Ticket {
        let mut inner = lock(&self.0);
        inner.last_ticket = inner.last_ticket.wrapping_add(1);
        let ticket = Ticket(inner.last_ticket);
        if inner.first.is_none() {
            inner.first = Some((ticket, request));
        } else {
            inner.more.push((ticket, request));
        }
        ticket
    }

    /// Forgets a request; true when it was the last.
    pub(super) fn end(&self, ticket: Ticket, ending: Ending) -> bool {
        let mut inner = lock(&self.0);
        match ending {
            Ending::Finished { stopping } => {
                inner.counts.finished += 1;
                inner.counts.finished_during_stop += u64::from(stopping);
            }
            Ending::Abandoned => inner.counts.abandoned_by_client += 1,
            Ending::CutOff => {}
        }
        if inner.first.as_ref().is_some_and(|(of, _)| *of == ticket) {
            inner.first = None;
        } else if let Some(index) = inner.more.iter().position(|(of, _)| *of == ticket) {
            inner.more.swap_remove(index);
        }
        inner.first.is_none() && inner.more.is_empty()
    }

    /// Keeps a request's name beyond its end.
    pub(super) fn keep_name(&self, ticket: Ticket) {
        let mut inner = lock(&self.0);
        let open = inner.first.iter().chain(&inner.more);
        let named = open.filter(|(of, _)| *of == ticket).map(|(_, named)| named);
        let kept = named.map(|named| Box::new((named.route(), named.since)));
        inner.upgraded = kept.last();
    }

    /// The route of the request that ended in an upgrade, and since when.
    pub(super) fn upgraded(&self) -> Option<(String, u64)> {
        lock(&self.0).upgraded.as_deref().cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        let inner = lock(&self.0);
        inner.first.is_none() && inner.more.is_empty()
    }

    pub(super) fn counts(&self) -> RequestCounts {
        lock(&self.0).counts
    }

    /// Describes each request that is under way.
    pub(super) fn map<T>(&self, describe: impl FnMut(&Named) -> T) -> Vec<T> {
        let inner = lock(&self.0);
        let open = inner.first.iter().chain(&inner.more);
        open.map(|(_, request)| request).map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &'static str) -> Named {
        Named {
            method: Method::GET,
            target: Some(PathAndQuery::from_static(path)),
            since: 0,
        }
    }

    #[test]
    fn each_request_is_named_until_its_own_end() {
        let requests = Requests::default();
        let routes = || requests.map(Named::route);
        let slow = requests.begin(get("/slow?secret"));
        let fast = requests.begin(get("/fast"));
        assert_eq!(routes(), ["GET /slow", "GET /fast"]);

        assert!(!requests.end(slow, Ending::Abandoned));
        assert_eq!(routes(), ["GET /fast"]);

        let big = requests.begin(get("/big"));
        assert!(!requests.end(fast, Ending::CutOff));
        assert!(!requests.is_empty());
        assert!(requests.end(big, Ending::Finished { stopping: true }));
        assert!(requests.is_empty());

        let counts = requests.counts();
        assert_eq!((counts.finished, counts.finished_during_stop), (1, 1));
        assert_eq!((counts.abandoned_by_client, counts.cut_off), (1, 0));
    }
}
