//! The service under judgement: how it is started, what it may be asked, how it is told to stop.
//!
//! The promise: a started command has answered a request over HTTP, on a port that was free, and
//! everything it was started with is gone when its [`Running`] is dropped.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::attach::AttachError;
use crate::channel::{self, Endpoint};
use crate::disposition::Disposition;
use crate::http1::{Connection, Letter, Unmade};
use crate::http2::Session;
use crate::listeners::{holds_one_of, on_port};
use crate::outcome::{End, Seen};
use crate::plan::{Kind, Request, Requests};
use crate::process::{self, Descendant, Ended, Process, ProcessError, SignalTo, Spawn};
use crate::target::Target;
use crate::tcp::Window;

/// Where the port goes in a command.
pub const PORT: &str = "{port}";

/// Describes a service.
#[derive(Debug, Clone)]
pub struct Service {
    /// What is told to stop.
    pub target: Target,
    /// What it may be asked.
    pub offers: Offers,
    /// The signal that asks it to stop.
    pub signal: i32,
    /// Who gets it.
    pub signal_to: SignalTo,
    /// What is declared of its stop, beside what is expected of any.
    pub declared: Declared,
    /// How long its stop may take.
    pub grace: Duration,
    /// How long it may take to listen and to answer.
    pub start_limit: Duration,
}

/// Says what it can be asked; a check that needs what is absent is left out.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// Answers at once.
    pub fast: String,
    /// Takes some hundred milliseconds.
    pub slow: Option<String>,
    /// Answers with megabytes.
    pub big: Option<String>,
    /// Takes a body by POST.
    pub upload: Option<String>,
    /// Is never answered.
    pub endless: Option<String>,
    /// Answers with a body that never ends.
    pub stream: Option<String>,
    /// Answers with server-sent events that never end.
    pub sse: Option<String>,
    /// Accepts a WebSocket.
    pub ws: Option<String>,
    /// Tells whether it wants more work.
    pub ready: Option<String>,
    /// Tells whether it is alive.
    pub live: Option<String>,
    /// How long it still serves who connects after the signal; zero: it promises nothing.
    pub lame_duck: Duration,
    /// What it stores, and how to ask for it afterwards.
    pub ledger: Option<Ledger>,
    /// The command that restarts it where it stands; `{pid}` and `{port}` stand for its own.
    pub restart: Option<Vec<OsString>>,
    /// A method of gRPC, /PACKAGE.SERVICE/METHOD, that takes an empty message.
    pub grpc: Option<String>,
    /// Whether it speaks HTTP/2: with prior knowledge, and under TLS by ALPN.
    pub http2: bool,
    /// Whether it speaks HTTP/2 alone, as gRPC servers do.
    pub no_http1: bool,
    /// Whether it speaks TLS on its port.
    pub tls: bool,
}

/// What a service says of its own stop.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Exit codes that say that the stop was meant, beside 0 and those that stand for the signals.
    pub exit_codes: Vec<i32>,
    /// What a second signal does, if that is to be judged.
    pub second_signal: Option<SecondSignal>,
}

/// What a second signal does during a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondSignal {
    /// Nothing: the stop goes on as after one.
    Nothing,
    /// It ends the process soon, whatever is in flight.
    Hurries,
}

impl Declared {
    /// Tells whether an exit code says that a stop by this signal was meant.
    pub(crate) fn accepts(&self, code: i32, signal: i32) -> bool {
        // 128 + N is read by shells and supervisors as "ended by signal N, in order".
        [0, 128 + signal].contains(&code) || self.exit_codes.contains(&code)
    }
}

/// What a service stores: one entry a POST, known by an id. `{id}` stands for it everywhere.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The target that takes the POST.
    pub post: String,
    /// The body, JSON.
    pub body: String,
    /// The target that answers a GET with the entry, once the service runs again.
    pub read: Option<String>,
    /// The command that judges by itself, once the service has ended.
    pub invariant: Option<Vec<OsString>>,
}

/// Where the id goes in a ledger's body and targets.
pub const ID: &str = "{id}";

impl Offers {
    pub(crate) fn requests(&self) -> Requests {
        let offers = self.clone();
        let or_fast = |path: &Option<String>| path.clone().unwrap_or_else(|| offers.fast.clone());
        let (slow, big, upload) = (
            or_fast(&self.slow),
            or_fast(&self.big),
            or_fast(&self.upload),
        );
        let fast = self.fast.clone();
        let body = vec![b'u'; 64 * 1024];
        Requests::every(move |tag| Request::get(fast.clone()).tagged(tag))
            .with(Kind::Http2, {
                let slow = slow.clone();
                move |tag| Request::get(slow.clone()).tagged(tag)
            })
            .with(Kind::Slow, move |tag| {
                Request::get(slow.clone()).tagged(tag)
            })
            .with(Kind::SlowReader, move |tag| {
                Request::get(big.clone()).tagged(tag)
            })
            .with(Kind::SlowUpload, move |tag| {
                Request::post(upload.clone(), body.clone()).tagged(tag)
            })
    }
}

/// A service that was started.
#[derive(Debug)]
pub struct Running {
    /// The process that was started.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A service that is the first process of a PID namespace.
#[derive(Debug)]
pub(crate) struct FirstProcess {
    /// The parent, which ends as the service does and takes it along.
    pub(crate) running: Running,
    pid: libc::pid_t,
    unshare: &'static [&'static str],
}

impl FirstProcess {
    /// Tells what becomes of a signal.
    pub(crate) fn disposition(&self, signal: i32) -> Option<Disposition> {
        Disposition::of(self.pid.cast_unsigned(), signal)
    }

    /// Sends the service a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), StartError> {
        // SAFETY: kill(2) takes two numbers. The parent has not reaped it: it would have ended.
        match unsafe { libc::kill(self.pid, signal) } {
            0 => Ok(()),
            _ => Err(StartError::NoFirstProcess),
        }
    }
}

/// Means that there is nothing to judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No command was given.
    #[error("no command was given")]
    NoCommand,
    /// No port could be had.
    #[error("no port is free on 127.0.0.1")]
    NoPort(#[source] io::Error),
    /// The system permits no PID namespace, or the process ended in it.
    #[error("it could not be started as PID 1: that takes `unshare --pid` and the right to it")]
    NoFirstProcess,
    /// The process could not be started, ended early, or never listened.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It ended, and something that it has started did not: it has become a daemon.
    #[error(
        "the command ended with {ended} and left {left} behind: start the service in the foreground, or start it first and give its --pid"
    )]
    ForkedAway {
        /// How the command ended.
        ended: Ended,
        /// What it left: what listens, if anything does.
        left: Descendant,
    },
    /// What was to be attached to is not there.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A command that was to stop or to start it failed.
    #[error("`{command}` ended with {ended}: {said}")]
    Refused {
        /// The command.
        command: String,
        /// How it ended.
        ended: Ended,
        /// What it said.
        said: String,
    },
    /// It listens and does not answer as an HTTP server does.
    #[error("it listens on {address}, but at GET {path} {what}")]
    NotHttp {
        /// Where.
        address: SocketAddr,
        /// What came instead.
        what: String,
        /// What was asked.
        path: String,
    },
}

impl Service {
    /// Starts it on a free port and waits for its first answer.
    ///
    /// # Errors
    /// Says what it did instead.
    pub async fn start(&self) -> Result<Running, StartError> {
        let mut running = self.launch()?;
        self.until_it_answers(&mut running).await?;
        Ok(running)
    }

    /// Says what is spoken where it listens.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Endpoint {
        let tls = self.offers.tls;
        Endpoint { address, tls }
    }

    /// Starts it as the first process of a PID namespace, and waits for its first answer.
    pub(crate) async fn start_as_first_process(&self) -> Result<FirstProcess, StartError> {
        let mut refused = StartError::NoFirstProcess;
        for unshare in UNSHARE {
            let mut running = self.launch_by(unshare)?;
            match self.until_it_answers(&mut running).await {
                Ok(()) => {
                    let pid = only_child(running.process.id())?;
                    return Ok(FirstProcess {
                        running,
                        pid,
                        unshare,
                    });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Starts it in the way in which another was, and waits until it has a process.
    pub(crate) async fn launch_as(&self, other: &FirstProcess) -> Result<FirstProcess, StartError> {
        let running = self.launch_by(other.unshare)?;
        let parent = running.process.id();
        let born = async {
            loop {
                match only_child(parent) {
                    Ok(pid) => return pid,
                    Err(_) => sleep(BIRTH).await,
                }
            }
        };
        let pid = timeout(self.start_limit, born).await;
        Ok(FirstProcess {
            running,
            pid: pid.map_err(|_| StartError::NoFirstProcess)?,
            unshare: other.unshare,
        })
    }

    fn launch_by(&self, unshare: &'static [&'static str]) -> Result<Running, StartError> {
        let unshare = unshare.iter().map(OsString::from);
        let command = unshare.chain(self.command()?.iter().cloned()).collect();
        let service = Self {
            target: Target::Command(command),
            ..self.clone()
        };
        service.launch()
    }

    async fn until_it_answers(&self, running: &mut Running) -> Result<(), StartError> {
        let deadline = Instant::now() + self.start_limit;
        let answered = self.first_answer(running, deadline).await;
        match running.process.has_ended() {
            true => Err(ended_early(&mut running.process, running.address.port())),
            false => answered,
        }
    }

    /// Starts it on a free port, and waits for nothing.
    pub(crate) fn launch(&self) -> Result<Running, StartError> {
        let address = process::free_port().map_err(StartError::NoPort)?;
        let process = self.spawn(address)?.start()?;
        Ok(Running { process, address })
    }

    fn command(&self) -> Result<&[OsString], StartError> {
        match &self.target {
            Target::Command(command) => Ok(command),
            _ => Err(StartError::NoCommand),
        }
    }

    fn spawn(&self, address: SocketAddr) -> Result<Spawn, StartError> {
        let port = address.port().to_string();
        let mut words = self.command()?.iter().map(|word| fill(word, PORT, &port));
        let program = words.next().ok_or(StartError::NoCommand)?;
        Ok(Spawn::new(program).args(words).env("PORT", &port).whole())
    }

    async fn ask(&self, address: SocketAddr) -> Result<(), &'static str> {
        ask(self.endpoint(address), &self.offers).await
    }

    /// Asks until there is an answer: some servers listen before they are ready.
    async fn first_answer(
        &self,
        running: &mut Running,
        deadline: Instant,
    ) -> Result<(), StartError> {
        loop {
            // A process that ended says more than its silence.
            running
                .process
                .wait_listening(running.address, self.start_limit)
                .await?;
            let what = match self.ask(running.address).await {
                Ok(()) => return Ok(()),
                Err(what) => what,
            };
            if Instant::now() > deadline || is_final(what) {
                return Err(StartError::NotHttp {
                    address: running.address,
                    what: what.to_owned(),
                    path: self.offers.fast.clone(),
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Says why a process that was expected to run does not.
pub(crate) fn ended_early(process: &mut Process, port: u16) -> StartError {
    let inodes = on_port(port).unwrap_or_default();
    let listens = |left: &Descendant| holds_one_of(left.pid, &inodes);
    let left = process.descendants();
    let left = left.iter().find(|left| listens(left)).or(left.first());
    match process.ended_early() {
        Ok(ProcessError::EndedEarly {
            ended: ended @ Ended::Code(0),
            ..
        }) if let Some(left) = left => StartError::ForkedAway {
            ended,
            left: left.clone(),
        },
        Ok(error) | Err(error) => error.into(),
    }
}

/// Asks what runs already, until there is an answer.
///
/// # Errors
/// Says what came instead, until the limit.
pub(crate) async fn answers(
    endpoint: Endpoint,
    offers: &Offers,
    limit: Duration,
) -> Result<(), StartError> {
    let deadline = Instant::now() + limit;
    loop {
        let what = match ask(endpoint, offers).await {
            Ok(()) => return Ok(()),
            Err(what) => what,
        };
        if Instant::now() >= deadline || is_final(what) {
            return Err(StartError::NotHttp {
                address: endpoint.address,
                what: what.to_owned(),
                path: offers.fast.clone(),
            });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The ways to make a PID namespace: as root, and as anybody.
const UNSHARE: [&[&str]; 2] = [
    &["unshare", "--pid", "--fork", "--kill-child", "--"],
    &["unshare", "--user", "--pid", "--fork", "--kill-child", "--"],
];

/// How often a child is looked for.
const BIRTH: Duration = Duration::from_millis(1);

fn only_child(parent: u32) -> Result<libc::pid_t, StartError> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.map_err(|_| StartError::NoFirstProcess)?;
    let only = children.trim().parse();
    only.map_err(|_| StartError::NoFirstProcess)
}

const NOT_HTTP: &str = "what it answers is not HTTP/1.1 (does it want --tls or --no-http1?)";
/// Tells whether an answer is none that a service gives while it starts.
fn is_final(what: &str) -> bool {
    [NOT_HTTP, NOT_HTTP2, NOT_TLS, NOT_AGREED].contains(&what)
}

const NOT_AGREED: &str =
    "it refuses the TLS handshake (does it want --http2, --no-http1, a name or a certificate?)";
const NOT_HTTP2: &str = "it does not answer in HTTP/2";
const NOT_TLS: &str = "what it answers is not TLS (leave --tls out if it does not speak it)";

async fn ask(endpoint: Endpoint, offers: &Offers) -> Result<(), &'static str> {
    const LIMIT: Duration = Duration::from_secs(5);
    let request = Request::get(&offers.fast);
    let not_made = |unmade: Unmade| match unmade.evidence.end {
        End::Garbled => NOT_TLS,
        _ if unmade.error.kind() == channel::REFUSED => NOT_AGREED,
        _ if unmade.evidence.before.is_some() => {
            "it does not shake hands for TLS (leave --tls out if it does not speak it)"
        }
        _ => "it takes no connection",
    };
    if offers.no_http1 {
        let session = Session::open(endpoint, LIMIT).await.map_err(not_made)?;
        session.exchange(&request, LIMIT).await;
        // What it says to such a request is its own affair.
        return match session.is_understood() {
            true => Ok(()),
            false => Err(NOT_HTTP2),
        };
    }
    let letter = Letter::new(&[request], endpoint);
    let opened = Connection::open(endpoint, Window::Usual, LIMIT).await;
    let mut connection = opened.map_err(not_made)?;
    let evidence = connection.exchange(&letter, LIMIT).await.evidence(0);
    match (evidence.seen, evidence.end) {
        (Seen::Whole { status, .. }, _) if status < 500 => Ok(()),
        (Seen::Whole { .. }, _) => Err("it answers with a server error"),
        (_, End::Garbled) => Err(NOT_HTTP),
        (_, End::Hung) => Err("it does not answer"),
        _ => Err("it closes the connection"),
    }
}

/// Puts a value where its name stands in a word.
pub(crate) fn fill(word: &OsString, name: &str, value: &str) -> OsString {
    match word.to_str() {
        Some(word) => word.replace(name, value).into(),
        None => word.clone(),
    }
}
