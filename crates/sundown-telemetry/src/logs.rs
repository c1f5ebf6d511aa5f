//! What can be set of a log, and what is asked of it while it runs.

mod layer;
mod line;
mod writer;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

pub use self::layer::LogLayer;
#[cfg(feature = "otel")]
pub(crate) use self::layer::REQUESTS;
use self::line::Style;
use self::writer::Writer;
use crate::redact::Redaction;

/// How many bytes wait at the most, unless it is said otherwise.
const CAPACITY: usize = 8 << 20;

/// How long the end of a process may take that still has lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object: `@timestamp` (RFC 3339, UTC), `level`, `service`, `target`, `message`, then the fields of the
    /// event and of the spans around it. Of two fields of one name the inner one is written.
    Json,
    /// The same by the names of the Elastic Common Schema: `@timestamp`, `log.level`, `service.name`, `log.logger`,
    /// `message`, `trace.id`, `span.id`.
    Ecs,
    /// For people.
    Human,
}

/// What becomes of a line that finds the buffer full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted, and once there is room the log tells how many were.
    Drop,
    /// Whoever logs waits for room, and with it the request that it serves.
    Wait,
}

/// How many lines a log had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Those that the system has taken.
    pub written: u64,
    /// Those that found the buffer full.
    pub dropped: u64,
    /// Those that could not be written.
    pub failed: u64,
}

impl Counts {
    /// Those that nobody can read.
    pub fn lost(self) -> u64 {
        self.dropped + self.failed
    }
}

/// A log before it runs.
#[must_use = "nothing is logged until `init`"]
pub struct Logs {
    service: String,
    format: Option<Format>,
    sink: Box<dyn Write + Send>,
    is_terminal: bool,
    levels: Targets,
    redaction: Redaction,
    capacity: usize,
    when_full: WhenFull,
    beside: Option<Beside>,
}

/// The log with levels of its own, and what hears the same process beside it.
type Levelled = Filtered<LogLayer, reload::Layer<Targets, Registry>, Registry>;
type Beside = Box<dyn Layer<Layered<Levelled, Registry>> + Send + Sync>;

impl Logs {
    /// Begins with what most services want: INFO and above, to stderr; on a terminal for people, otherwise JSON.
    /// Card numbers and credentials are taken out. 8 MiB wait at the most, and what comes then is dropped and counted.
    pub fn of(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            format: None,
            is_terminal: io::stderr().is_terminal(),
            sink: Box::new(io::stderr()),
            levels: Targets::new().with_default(tracing::Level::INFO),
            redaction: Redaction::default(),
            capacity: CAPACITY,
            when_full: WhenFull::Drop,
            beside: None,
        }
    }

    /// Has lines look like this, wherever they go.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Writes to stdout.
    pub fn stdout(mut self) -> Self {
        self.is_terminal = io::stdout().is_terminal();
        self.sink = Box::new(io::stdout());
        self
    }

    /// Writes to the end of a file, which is made if there is none.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, NotStarted> {
        let path = path.as_ref();
        let file = OpenOptions::new().append(true).create(true).open(path);
        self.sink = Box::new(file.map_err(|cause| NotStarted::File {
            path: path.display().to_string(),
            cause,
        })?);
        self.is_terminal = false;
        Ok(self)
    }

    /// Writes to something else. It is written to by a thread of the log's own, and may block.
    pub fn writer(mut self, sink: impl Write + Send + 'static) -> Self {
        self.sink = Box::new(sink);
        self.is_terminal = false;
        self
    }

    /// Logs what is at least as severe as this, by target: `info,hyper=warn`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn levels(mut self, levels: &str) -> Result<Self, BadLevels> {
        self.levels = parse_levels(levels)?;
        Ok(self)
    }

    /// Takes these secrets out.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Lets no more than this many bytes wait.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// Says what becomes of a line that finds the buffer full.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Has something else hear what is logged, whatever the levels are.
    #[cfg(feature = "otel")]
    pub(crate) fn beside(mut self, other: Beside) -> Self {
        self.beside = Some(other);
        self
    }

    /// Starts it, as the process's only one. What logs by the `log` crate is heard, too.
    ///
    /// # Errors
    /// If there is one already, or the system gives no thread.
    pub fn init(mut self) -> Result<Log, NotStarted> {
        let levels = self.levels.clone();
        let beside = self.beside.take();
        let (layer, mut log) = self.layer()?;
        let (levels, handle) = reload::Layer::new(levels);
        log.levels = Some(handle);
        let registry = tracing_subscriber::registry();
        match beside {
            // One filter for all costs less.
            None => registry.with(levels).with(layer).try_init()?,
            Some(other) => registry
                .with(layer.with_filter(levels))
                .with(other)
                .try_init()?,
        }
        Ok(log)
    }

    /// Starts it as a layer for a subscriber of one's own, whose filters decide what is logged.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn layer(self) -> Result<(LogLayer, Log), NotStarted> {
        let by_place = match self.is_terminal {
            true => Format::Human,
            false => Format::Json,
        };
        let style = Arc::new(Style::new(
            self.format.unwrap_or(by_place),
            &self.service,
            self.redaction,
        ));
        let tells = style.clone();
        let loss_notice = Box::new(move |lost| tells.loss_notice(lost));
        let (writer, thread) = Writer::start(self.sink, self.capacity, self.when_full, loss_notice)
            .map_err(NotStarted::Thread)?;
        let layer = LogLayer::new(style, writer.clone());
        let log = Log {
            writer,
            levels: None,
            thread: Some(thread),
        };
        Ok((layer, log))
    }
}

/// A log that runs. When it is dropped, what waits is written, for two seconds at the most; later lines are lost.
pub struct Log {
    writer: Writer,
    levels: Option<reload::Handle<Targets, Registry>>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Logs what is at least as severe as this from now on.
    ///
    /// # Errors
    /// If it cannot be read, or the log is a layer of another subscriber, whose filters decide.
    pub fn set_levels(&self, levels: &str) -> Result<(), BadLevels> {
        let parsed = parse_levels(levels)?;
        let handle = self.levels.as_ref().ok_or(BadLevels::NotOurs)?;
        handle.reload(parsed).map_err(|_| BadLevels::NotOurs)
    }

    /// Waits until all lines that came before are written, but not for longer than this. Blocks the thread.
    ///
    /// # Errors
    /// If some are not.
    pub fn flush(&self, within: Duration) -> Result<(), Unwritten> {
        match self.writer.flush(within) {
            0 => Ok(()),
            lines => Err(Unwritten { lines }),
        }
    }

    /// How many lines there were.
    pub fn counts(&self) -> Counts {
        self.writer.counts()
    }

    /// Reads the same without it.
    #[cfg(feature = "otel")]
    pub(crate) fn counter(&self) -> impl Fn() -> Counts + Send + Sync + use<> {
        let writer = self.writer.clone();
        move || writer.counts()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let unwritten = self.writer.flush(LAST_LINES);
        self.writer.close();
        if unwritten > 0 {
            // Whatever blocks its thread may do so for ever.
            let _ = writeln!(io::stderr(), "{}", Unwritten { lines: unwritten });
        } else if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn parse_levels(levels: &str) -> Result<Targets, BadLevels> {
    levels.parse().map_err(|cause| BadLevels::Unreadable {
        levels: levels.to_owned(),
        cause,
    })
}

/// A log cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotStarted {
    /// Its file cannot be opened.
    #[error("could not open the log {path}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// There is no thread for it.
    #[error("could not start the log's thread")]
    Thread(#[source] io::Error),
    /// The process logs already.
    #[error("the process has a subscriber already")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<TryInitError> for NotStarted {
    fn from(error: TryInitError) -> Self {
        Self::Taken(Box::new(error))
    }
}

impl From<SetGlobalDefaultError> for NotStarted {
    fn from(error: SetGlobalDefaultError) -> Self {
        Self::Taken(Box::new(error))
    }
}

/// Levels cannot be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadLevels {
    /// They cannot be read.
    #[error("{levels:?} are no levels: say for instance \"info,hyper=warn\"")]
    Unreadable {
        /// What was given.
        levels: String,
        /// What is wrong with it.
        #[source]
        cause: tracing_subscriber::filter::ParseError,
    },
    /// Another's filters decide.
    #[error("the log is a layer of another subscriber, whose filters decide")]
    NotOurs,
}

/// Lines could not be written in time.
#[derive(Debug, thiserror::Error)]
#[error("{lines} log lines could not be written in time")]
pub struct Unwritten {
    /// How many.
    pub lines: u64,
}
