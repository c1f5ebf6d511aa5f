//! Whether a generation can take what connects: asked until it can, and then once more.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::settings::Url;

/// How often it has to hold, one time after the other.
const TIMES: u32 = 2;

/// The pause between two times.
const AGAIN: Duration = Duration::from_millis(100);

/// How long an answer to a request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often is looked whether a connection was accepted.
const STEP: Duration = Duration::from_millis(10);

/// What is asked of a generation.
pub(crate) enum Question {
    /// Nothing: this is the answer.
    Answered(bool),
    /// Whether it has said that it is ready.
    HasSaid,
    /// Whether it accepts these connections; that is [asked](Readiness::waits) of its queues from now on.
    Accepts(Vec<std::net::TcpStream>),
    /// Whether it answers a GET on this connection.
    Get(std::net::TcpStream, Url),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// [Ask](Readiness::ask) it.
    Ask,
    /// It is ready.
    Ready,
}

/// How far the asking has come.
pub(crate) struct Readiness {
    held: u32,
    has_said: bool,
    /// Connections that wait to be accepted, however long that takes.
    waiting: Vec<std::net::TcpStream>,
    step: Step,
}

enum Step {
    At(Instant),
    Asked(JoinHandle<bool>),
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self {
            held: 0,
            has_said: false,
            waiting: Vec::new(),
            step: Step::At(Instant::now()),
        }
    }

    /// Waits until something is to be done.
    ///
    /// # Cancel safety
    /// Safe: an answer is kept.
    pub(crate) async fn due(&mut self) -> Due {
        loop {
            if self.held >= TIMES {
                return Due::Ready;
            }
            match &mut self.step {
                Step::At(at) => {
                    sleep_until(*at).await;
                    return Due::Ask;
                }
                Step::Asked(task) => {
                    let holds = task.await.unwrap_or(false);
                    self.answered(holds);
                }
            }
        }
    }

    pub(crate) fn ask(&mut self, question: Question) {
        match question {
            Question::Answered(holds) => self.answered(holds),
            Question::HasSaid => self.answered(self.has_said),
            Question::Accepts(connections) => {
                self.waiting = connections;
                self.step = Step::At(Instant::now() + STEP);
            }
            Question::Get(connection, url) => {
                self.step = Step::Asked(tokio::spawn(async move {
                    let answer = timeout(PATIENCE, get(connection, &url)).await;
                    matches!(answer, Ok(Ok(200..=399)))
                }));
            }
        }
    }

    /// Something has changed, so that it is worth asking now.
    pub(crate) fn hurry(&mut self) {
        if let Step::At(at) = &mut self.step
            && self.held == 0
        {
            *at = Instant::now();
        }
    }

    /// It has said that it is ready.
    pub(crate) fn has_said(&mut self) {
        self.has_said = true;
        self.hurry();
    }

    /// Whether connections wait to be accepted: the answer is whether none is in its queues any more.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn answered(&mut self, holds: bool) {
        let holds = holds && self.waiting.iter().all(|one| one.peer_addr().is_ok());
        if self.waits() && !holds {
            self.step = Step::At(Instant::now() + STEP);
            return;
        }
        self.waiting.clear();
        self.held = if holds { self.held + 1 } else { 0 };
        self.step = Step::At(Instant::now() + AGAIN);
    }
}

/// Asks for a page; the status of the answer.
async fn get(connection: std::net::TcpStream, url: &Url) -> Result<u16, sundown::BoxError> {
    let connection = TcpStream::from_std(connection)?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(connection)).await?;
    let request = Request::get(&url.path)
        .header(header::HOST, &url.host)
        .header(
            header::USER_AGENT,
            concat!("sundown/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = requests.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            // It may have brought the answer before its end.
            answer.await
        }
    };
    Ok(answer?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_has_to_hold_twice_in_a_row() {
        let mut readiness = Readiness::new();
        for answer in [false, true, false, true, true] {
            assert_eq!(readiness.due().await, Due::Ask);
            readiness.ask(Question::Answered(answer));
        }
        assert_eq!(readiness.due().await, Due::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_counts_from_then_on() {
        let mut readiness = Readiness::new();
        assert_eq!(readiness.due().await, Due::Ask);
        readiness.ask(Question::HasSaid);
        readiness.has_said();
        for _ in 0..2 {
            assert_eq!(readiness.due().await, Due::Ask);
            readiness.ask(Question::HasSaid);
        }
        assert_eq!(readiness.due().await, Due::Ready);
    }
}
