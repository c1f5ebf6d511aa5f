//! Keeps a load's books: hands out requests, knows how many are under way, counts the outcomes.
//!
//! Never talks to a server.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::http1::Unmade;
use crate::http1::message::Response;
use crate::outcome::{Evidence, Outcome, judge};
use crate::plan::{Kind, Plan, Request};
use crate::tally::{Example, Tally};
use crate::timeline::{Client, Span};

/// Is shared by all clients of a load.
#[derive(Debug)]
pub(crate) struct Ledger {
    plan: Plan,
    tally: Mutex<Tally>,
    in_flight: AtomicUsize,
    next: AtomicU64,
}

impl Ledger {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            tally: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            next: 0.into(),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn tally(&self) -> Tally {
        self.books().clone()
    }

    /// Builds the next request.
    pub(crate) fn request(&self, kind: Kind) -> Request {
        self.plan
            .requests
            .build(kind, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes that so many requests are under way until the guard is dropped.
    pub(crate) fn begin(&self, requests: usize) -> UnderWay<'_> {
        self.in_flight.fetch_add(requests, Ordering::Relaxed);
        UnderWay {
            ledger: self,
            requests,
        }
    }

    /// Judges one request and counts the outcome.
    pub(crate) fn count(&self, report: Report<'_>) -> Outcome {
        let Report {
            kind,
            number,
            request,
            span,
            evidence,
            response,
            error,
        } = report;
        let outcome = judge(&evidence);
        if let (Some(response), Some(on_answer)) = (response, &self.plan.on_answer) {
            on_answer(request, response.status, &response.body);
        }
        let line = || format!("{} {}", request.method, request.path);
        if let Some(recorder) = &self.plan.recorder {
            let client = Client {
                kind: Some(kind),
                number,
            };
            recorder.note(client, span, line(), &evidence, error);
        }
        let mut books = self.books();
        books.count(kind, outcome);
        if let Outcome::Lost(loss) = outcome {
            books.describe(|| Example {
                kind,
                loss,
                request: line(),
                tag: request.tag,
                phase: evidence.to_string(),
                error: error(),
            });
        }
        outcome
    }

    /// Counts a request for which no connection could be made.
    pub(crate) fn count_unmade(
        &self,
        kind: Kind,
        number: usize,
        request: &Request,
        unmade: &Unmade,
    ) {
        self.count(Report {
            kind,
            number,
            request,
            span: unmade.span,
            evidence: unmade.evidence,
            response: None,
            error: &|| unmade.error.to_string(),
        });
    }

    fn books(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is what a client reports when a request is over.
pub(crate) struct Report<'a> {
    pub(crate) kind: Kind,
    /// The client's number within the load, from one.
    pub(crate) number: usize,
    pub(crate) request: &'a Request,
    pub(crate) span: Span,
    pub(crate) evidence: Evidence,
    pub(crate) response: Option<&'a Response>,
    pub(crate) error: &'a dyn Fn() -> String,
}

/// Counts requests as under way until it is dropped.
pub(crate) struct UnderWay<'a> {
    ledger: &'a Ledger,
    requests: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.ledger
            .in_flight
            .fetch_sub(self.requests, Ordering::Relaxed);
    }
}

/// Puts an HTTP/1.1 exchange into words.
pub(crate) fn words(exchange: &crate::http1::Exchange, evidence: &Evidence) -> String {
    match exchange.error() {
        Some(error) => error.to_string(),
        None => format!("{:?}", evidence.end),
    }
}
