//! The shop's log: to stderr, for people on a terminal and as JSON elsewhere, and whole when the process ends.

use std::sync::Arc;

use sundown::App;
use sundown_telemetry::{BadLevels, Log, Logs, NotStarted};

/// The log of a service; none of its own where whoever embeds the shop has one.
#[derive(Clone)]
pub(crate) struct ServiceLog(Option<Arc<Log>>);

impl ServiceLog {
    /// Starts it.
    ///
    /// # Errors
    /// If these are no levels.
    pub(crate) fn start(service: &str, levels: &str) -> Result<Self, BadLevels> {
        let started = Logs::of(service).levels(levels)?.init();
        if let Err(error @ (NotStarted::File { .. } | NotStarted::Thread(_))) = &started {
            eprintln!("warning: nothing is logged: {error}");
        }
        Ok(Self(started.ok().map(Arc::new)))
    }

    /// Begins a service whose last line is written before its process ends, however that does.
    pub(crate) fn app(self, name: &str) -> App {
        let app = App::new(name);
        match self.0 {
            Some(log) => app.last_words(move |within| {
                // What is not written is counted by the log itself, and there is nobody left to tell.
                let _ = log.flush(within);
            }),
            None => app,
        }
    }
}
