//! The requests under way on one connection, by name, and how those before them ended.
//!
//! Nothing of a request is kept once it has ended: its target shares memory with hyper's buffer.

use std::sync::Mutex;
use std::task::Waker;
use std::time::Instant;

use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri};

use crate::core::lock;
use crate::report::RequestCounts;
use crate::traffic::Traffic;

/// What is known of one connection's requests. Its lock is taken by whoever serves the connection,
/// and by a report.
#[derive(Default)]
pub(super) struct Requests(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last_ticket: u32,
    /// The only place that HTTP/1 needs: it has one request at a time.
    first: Option<Open>,
    more: Vec<Open>,
    /// Of a connection without requests: its name, and since when. Boxed: few connections have one.
    kept_name: Option<Box<(String, u64)>>,
    counts: RequestCounts,
}

/// A request under way.
struct Open {
    ticket: Ticket,
    named: Named,
    /// Of a response that a stop may have to end: its class, and whoever asked for more of it.
    leaves: Option<(Traffic, Waker)>,
}

/// Says which request of its connection one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

/// What the report says of a request.
pub(super) struct Named {
    pub(super) method: Method,
    pub(super) target: Target,
    /// Microseconds of the service's clock.
    pub(super) since: u64,
}

/// What of a request's target names it; shares memory with the request.
pub(super) enum Target {
    Path(PathAndQuery),
    /// Where CONNECT is to lead.
    Authority(Authority),
    None,
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Self {
        match (uri.path_and_query(), uri.authority()) {
            (Some(path), _) => Self::Path(path.clone()),
            (None, Some(authority)) => Self::Authority(authority.clone()),
            (None, None) => Self::None,
        }
    }
}

impl Named {
    /// The method and the path without the query, which may hold secrets.
    pub(super) fn route(&self) -> String {
        let target = match &self.target {
            Target::Path(path) => path.path(),
            Target::Authority(authority) => authority.as_str(),
            Target::None => "*",
        };
        format!("{} {target}", self.method)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Answered in full, before or during the stop.
    Finished { stopping: bool },
    /// A stream that would have gone on: ended in order, by the stop.
    EndedEarly,
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
        let open = Open {
            ticket,
            named: request,
            leaves: None,
        };
        if inner.first.is_none() {
            inner.first = Some(open);
        } else {
            inner.more.push(open);
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
            Ending::EndedEarly => inner.counts.ended_early += 1,
            Ending::Abandoned => inner.counts.abandoned_by_client += 1,
            Ending::CutOff => {}
        }
        if inner
            .first
            .as_ref()
            .is_some_and(|open| open.ticket == ticket)
        {
            inner.first = None;
        } else if let Some(index) = inner.more.iter().position(|open| open.ticket == ticket) {
            inner.more.swap_remove(index);
        }
        inner.first.is_none() && inner.more.is_empty()
    }

    /// Keeps a request's name beyond its end.
    pub(super) fn keep_name(&self, ticket: Ticket) {
        if let Some((name, since)) = self.describe(ticket, |named| (named.route(), named.since)) {
            self.go_by(name, since);
        }
    }

    /// Names the connection, which has no requests any more.
    pub(super) fn go_by(&self, name: String, since: u64) {
        lock(&self.0).kept_name = Some(Box::new((name, since)));
    }

    /// The name that was kept, and since when the connection goes by it.
    pub(super) fn kept_name(&self) -> Option<(String, u64)> {
        lock(&self.0).kept_name.as_deref().cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        let inner = lock(&self.0);
        inner.first.is_none() && inner.more.is_empty()
    }

    pub(super) fn counts(&self) -> RequestCounts {
        lock(&self.0).counts
    }

    /// Describes one request that is under way.
    pub(super) fn describe<T>(
        &self,
        ticket: Ticket,
        describe: impl FnOnce(&Named) -> T,
    ) -> Option<T> {
        let inner = lock(&self.0);
        let open = inner.open().find(|open| open.ticket == ticket);
        open.map(|open| describe(&open.named))
    }

    /// Describes each request that is under way.
    pub(super) fn map<T>(&self, describe: impl FnMut(&Named) -> T) -> Vec<T> {
        let inner = lock(&self.0);
        inner.open().map(|open| &open.named).map(describe).collect()
    }

    /// Remembers whom to wake when a response of this class is to end.
    pub(super) fn wait(&self, ticket: Ticket, traffic: Traffic, waker: &Waker) {
        let mut inner = lock(&self.0);
        let Inner { first, more, .. } = &mut *inner;
        let mut open = first.iter_mut().chain(more);
        if let Some(open) = open.find(|open| open.ticket == ticket) {
            match &mut open.leaves {
                Some((_, before)) => before.clone_from(waker),
                leaves => *leaves = Some((traffic, waker.clone())),
            }
        }
    }

    /// Wakes those whose class is to leave by now; returns when the next one's is.
    pub(super) fn wake_leaving(
        &self,
        now: Instant,
        leave_at: impl Fn(Traffic) -> Option<Instant>,
    ) -> Option<Instant> {
        let inner = lock(&self.0);
        let leaves = inner.open().filter_map(|open| open.leaves.as_ref());
        let later = leaves.filter_map(|(traffic, waker)| {
            let at = leave_at(*traffic)?;
            if at <= now {
                waker.wake_by_ref();
            }
            (at > now).then_some(at)
        });
        later.min()
    }
}

impl Inner {
    fn open(&self) -> impl Iterator<Item = &Open> {
        self.first.iter().chain(&self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &'static str) -> Named {
        Named {
            method: Method::GET,
            target: Target::Path(PathAndQuery::from_static(path)),
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
