//! What a check is, and what it can find.
//!
//! The promise: a verdict always carries how often the fault could have shown; where that is too
//! little it is inconclusive, and never a pass.

use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

use crate::cause;
use crate::outcome::Loss;
use crate::service::Service;
use crate::stop::{LAG_LIMIT, Moments, Stage};
use crate::tally::{Counts, Tally};
use crate::target::Target;

/// One promise about stopping, and how it is put to the test.
#[derive(Debug)]
pub struct Check {
    /// Section and number, such as `http1/2`.
    pub id: &'static str,
    /// How much it weighs.
    pub level: Level,
    /// What a service that passes keeps.
    pub promise: &'static str,
    /// What is done.
    pub method: &'static str,
    /// When it passes.
    pub criterion: &'static str,
    /// Where the promise comes from.
    pub source: &'static str,
    /// What to do about a failure.
    pub advice: &'static str,
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Whose stop it looks at.
    pub stop: Stop,
    /// Plays it on a running service.
    pub play: fn(Stage) -> Playing,
}

/// A check while it is played.
pub type Playing = Pin<Box<dyn Future<Output = Finding> + Send>>;

/// How much a check weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// To fail it is to lose requests, or to be killed.
    Must,
    /// To fail it is to trouble operators; it counts under `--strict`.
    Should,
    /// Told, and never judged.
    Info,
}

/// What a check needs to be told, or to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A target that takes a while.
    Slow,
    /// A target with a big answer.
    Big,
    /// A target that takes a body.
    Upload,
    /// A target that never answers.
    Endless,
    /// A target whose body never ends.
    Stream,
    /// Server-sent events.
    Sse,
    /// A WebSocket.
    Ws,
    /// A target that tells readiness.
    Ready,
    /// A target that tells liveness.
    Live,
    /// A time in which it still serves who connects after the signal.
    LameDuck,
    /// A target that stores, and a way to ask for what it has stored.
    Ledger,
    /// A command that restarts it.
    Restart,
    /// A gRPC method.
    Grpc,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// TLS.
    Tls,
    /// No TLS.
    Plain,
    /// A process to signal, to freeze and to watch.
    Process,
    /// When the signal is sent.
    Moment,
    /// The exit status.
    Status,
    /// All processes of the service.
    Orphans,
    /// The command, to start it in another way.
    Command,
}

impl Need {
    /// Tells whether the service offers it, or shows it.
    pub fn met_by(self, service: &Service) -> bool {
        let Service { offers, target, .. } = service;
        match self {
            Self::Slow => offers.slow.is_some(),
            Self::Big => offers.big.is_some(),
            Self::Upload => offers.upload.is_some(),
            Self::Endless => offers.endless.is_some(),
            Self::Stream => offers.stream.is_some(),
            Self::Sse => offers.sse.is_some(),
            Self::Ws => offers.ws.is_some(),
            Self::Ready => offers.ready.is_some(),
            Self::Live => offers.live.is_some(),
            Self::LameDuck => !offers.lame_duck.is_zero(),
            Self::Ledger => offers.ledger.is_some(),
            Self::Restart => offers.restart.is_some(),
            Self::Grpc => offers.grpc.is_some(),
            Self::Http1 => !offers.no_http1,
            Self::Http2 => offers.http2 || offers.no_http1,
            Self::Tls => offers.tls,
            Self::Plain => !offers.tls,
            Self::Process => target.has_process(),
            Self::Moment => target.is_signalled_by_us(),
            Self::Status => target.shows_status(),
            Self::Orphans | Self::Command => target.is_command(),
        }
    }

    /// Tells whether it depends on what is stopped, and not on what that may be asked.
    pub fn is_of_target(self) -> bool {
        matches!(
            self,
            Self::Process | Self::Moment | Self::Status | Self::Orphans | Self::Command
        )
    }

    /// Says why a check is left out that needs it, and what to do about that.
    pub fn missing_from(self, target: &Target) -> String {
        let why = match self {
            Self::Process => "to signal, freeze or watch it",
            Self::Moment => "which only its sender knows",
            Self::Status => "which only a parent and systemd see",
            Self::Orphans => "to see what is left of them",
            Self::Command => "to start the service in other ways",
            _ => return format!("needs {}", self.name()),
        };
        let (name, flag) = (self.name(), target.flag());
        format!("needs {name}, {why}: give the command instead of {flag}")
    }

    /// The flag that gives it, or what is to be seen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "--slow PATH",
            Self::Big => "--big PATH",
            Self::Upload => "--upload PATH",
            Self::Endless => "--endless PATH",
            Self::Stream => "--stream PATH",
            Self::Sse => "--sse PATH",
            Self::Ws => "--ws PATH",
            Self::Ready => "--ready PATH",
            Self::Live => "--live PATH",
            Self::LameDuck => "--lame-duck DURATION",
            Self::Ledger => "--ledger PATH with --ledger-read PATH or --invariant CMD",
            Self::Restart => "--restart CMD",
            Self::Grpc => "--grpc METHOD",
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "--http2",
            Self::Tls => "--tls",
            Self::Plain => "connections without TLS",
            Self::Process => "the process itself",
            Self::Moment => "the moment of the signal",
            Self::Status => "the exit status",
            Self::Orphans => "all its processes",
            Self::Command => "the command",
        }
    }
}

/// Whose stop a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// One that other checks look at, too: a start of the target is the dearest part of a check.
    Shared,
    /// One that checks share that keep streams open which never end: it may take all of the grace.
    Streams,
    /// One of its own, because it gives the signal by itself or would disturb others.
    Own,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The promise was kept.
    Pass,
    /// The promise was broken.
    Fail,
    /// Too little was seen.
    Inconclusive,
    /// It differed from run to run.
    Flaky,
    /// It was not asked for, or something it needs was not given.
    Skipped,
}

/// What a check found in one stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// How many requests, connections or stops could have shown the fault.
    pub exposed: u64,
    /// How many requests of these were lost, where requests are what it counts.
    pub lost: Option<u64>,
    /// What was seen, in a few words.
    pub seen: String,
    /// Single cases, in words.
    pub evidence: Vec<String>,
    /// Why the promise was broken, as far as what was seen says so.
    pub cause: Option<String>,
}

impl Finding {
    /// The promise was kept, in so many cases.
    pub fn pass(exposed: u64, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Pass, exposed, seen)
    }

    /// The promise was broken.
    pub fn fail(exposed: u64, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, exposed, seen)
    }

    /// Nothing can be said.
    pub fn inconclusive(seen: impl Into<String>) -> Self {
        Self::new(Verdict::Inconclusive, 0, seen)
    }

    fn new(verdict: Verdict, exposed: u64, seen: impl Into<String>) -> Self {
        Self {
            verdict,
            exposed,
            lost: None,
            seen: seen.into(),
            evidence: Vec::new(),
            cause: None,
        }
    }

    fn losing(self, lost: u64) -> Self {
        Self {
            lost: Some(lost),
            ..self
        }
    }

    /// Adds single cases.
    pub fn with_evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// Says why the promise was broken, if that is known.
    pub fn because(mut self, cause: impl Into<Option<String>>) -> Self {
        self.cause = cause.into();
        self
    }

    /// Judges by the end: whether it came within the grace, without a SIGKILL.
    pub fn of_end(moments: &Moments, grace: Duration) -> Self {
        if moments.stayed {
            let seen = format!("still there after {grace:?}, and left alone");
            return Self::fail(1, seen).because(cause::of_stay(moments, grace));
        }
        if moments.killed {
            let seen = format!("still there after {grace:?}, and killed");
            return Self::fail(1, seen).because(cause::of_stay(moments, grace));
        }
        let ended = moments.ended.map(|(at, _)| at);
        match moments.after_signal(ended) {
            Some(took) => Self::pass(1, format!("exited after {} ms", took.as_millis())),
            None => Self::inconclusive("it ended before the signal"),
        }
    }

    /// Judges by losses: one is too many, and fewer requests than `least` show nothing. Where `lag`
    /// says that we were late ourselves, what hung says nothing either.
    pub fn of_losses(tally: &Tally, counts: &Counts, least: u64, lag: Duration) -> Self {
        let exposed = counts.answered + counts.lost;
        if counts.lost > 0 && counts.lost == counts.lost_as(Loss::Hung) && lag > LAG_LIMIT {
            return Self::inconclusive(format!(
                "{} hung, but this machine was late by {} ms itself",
                counts.lost,
                lag.as_millis()
            ));
        }
        if counts.lost > 0 {
            let examples = tally.examples.iter();
            return Self::fail(
                exposed,
                format!("{} of {exposed} lost: {}", counts.lost, ways(counts)),
            )
            .losing(counts.lost)
            .with_evidence(examples.map(|example| {
                format!(
                    "{}: {} ({}; {})",
                    example.request, example.loss, example.phase, example.error
                )
            }));
        }
        if exposed < least {
            return Self::new(
                Verdict::Inconclusive,
                exposed,
                format!("only {exposed} requests were at stake, {least} are needed"),
            );
        }
        Self::pass(exposed, format!("0 of {exposed} lost")).losing(0)
    }
}

fn ways(counts: &Counts) -> String {
    let ways = counts.lost_as.iter();
    let words: Vec<String> = ways
        .map(|(loss, count)| format!("{count} {loss}"))
        .collect();
    words.join(", ")
}
