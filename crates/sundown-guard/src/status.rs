//! How a guard and what it guards are at this moment.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a guard is, as `sundown status` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// What it is called.
    pub name: String,
    /// The guard's own process.
    pub pid: u32,
    /// Whether a generation has been ready yet.
    pub ready: bool,
    /// Whether it stops.
    pub stopping: bool,
    /// Every generation that runs, the oldest first.
    pub generations: Vec<GenerationStatus>,
    /// What became of the last restart, if there was one.
    pub last_restart: Option<String>,
    /// How the last generation ended that has finished what it had, and what was cut off.
    pub last_report: Option<String>,
    /// What has happened since the guard was started.
    pub counts: Counts,
}

/// What has happened since a guard was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// The number of the generation that takes what connects.
    pub generation: u32,
    /// Generations that took over because that was asked for.
    pub restarts: u64,
    /// Restarts that came to nothing.
    pub failed_restarts: u64,
    /// Ends of the application that nobody asked for.
    pub crashes: u64,
    /// What was under way when its generation ended.
    pub cut_off: u64,
}

/// How a generation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerationStatus {
    /// The first is 1.
    pub number: u32,
    /// What it does.
    pub state: State,
    /// The process that the command became, if it runs.
    pub pid: Option<i32>,
    /// What it says of itself (STATUS= of sd_notify(3)).
    pub says: Option<String>,
    /// Milliseconds since it does that.
    pub since_ms: u64,
    /// Where it listens.
    pub listens: Vec<String>,
    /// What holds its end up: the first few.
    pub held: Vec<String>,
    /// How many there are of those.
    pub held_count: usize,
}

/// What a generation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It starts, and nothing goes to it yet.
    Starting,
    /// Who connects waits until it is started.
    Waiting,
    /// It takes what connects.
    Current,
    /// It finishes what it has.
    Retiring,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Waiting => "waits to be started",
            Self::Current => "takes what connects",
            Self::Retiring => "finishes what it has",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stops = if self.stopping { ", stopping" } else { "" };
        write!(f, "{} (guard is PID {}{stops})", self.name, self.pid)?;
        for generation in &self.generations {
            write!(f, "\n  {generation}")?;
        }
        if let Some(last) = &self.last_restart {
            write!(f, "\n  last restart: {last}")?;
        }
        if let Some(last) = &self.last_report {
            write!(f, "\n  last report: {last}")?;
        }
        Ok(())
    }
}

impl fmt::Display for GenerationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self
            .pid
            .map_or("no process".to_owned(), |pid| format!("PID {pid}"));
        let since = humantime::format_duration(Duration::from_secs(self.since_ms / 1000));
        write!(
            f,
            "generation {} ({pid}) {} since {since}",
            self.number, self.state
        )?;
        if !self.listens.is_empty() {
            write!(f, ", listens on {}", self.listens.join(", "))?;
        }
        if let Some(says) = &self.says {
            write!(f, "; it says: {says}")?;
        }
        for held in &self.held {
            write!(f, "\n    {held}")?;
        }
        match self.held_count.saturating_sub(self.held.len()) {
            0 => Ok(()),
            more => write!(f, "\n    and {more} more"),
        }
    }
}
