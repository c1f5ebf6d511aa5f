//! Asks systemd, by systemctl(1).
//!
//! The promise: what systemctl refuses is told in its own words, on one line.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::AttachError;
use crate::process::Ended;

/// How long systemctl may take to answer a question.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// How often systemd is asked how a process ended that has.
const STEP: Duration = Duration::from_millis(20);

/// What is asked of a unit.
const PROPERTIES: &str = "--property=LoadState,ActiveState,MainPID,KillSignal,Result,\
                          ExecMainPID,ExecMainCode,ExecMainStatus";

/// Runs systemctl; returns what it wrote.
///
/// # Errors
/// If it is not there, refuses, or takes longer than the limit.
pub(crate) async fn systemctl(arguments: &[&str], limit: Duration) -> Result<String, AttachError> {
    let refused = |words: String| AttachError::Systemctl {
        what: arguments.join(" "),
        words,
    };
    let mut command = Command::new("systemctl");
    // A question for a password would wait for somebody who is not there.
    command
        .arg("--no-ask-password")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(limit, command.output()).await;
    let output = output.map_err(|_| refused(format!("not done within {limit:?}")))?;
    let output = output.map_err(AttachError::NoSystemctl)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = words.lines().map(str::trim).collect();
    match lines.join(" ") {
        none if none.is_empty() => Err(refused(output.status.to_string())),
        some => Err(refused(some)),
    }
}

/// What systemd knows of a unit at one moment.
#[derive(Debug)]
pub(crate) struct State(HashMap<String, String>);

impl State {
    /// Asks.
    pub(crate) async fn of(name: &str) -> Result<Self, AttachError> {
        let text = systemctl(&["show", PROPERTIES, "--", name], ASK_LIMIT).await?;
        Ok(Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> Option<i32> {
        self.text(key).parse().ok().filter(|number| *number > 0)
    }

    /// The main process of a unit that runs.
    pub(crate) fn main_process(&self, name: &str) -> Result<u32, AttachError> {
        let name = name.to_owned();
        if self.text("LoadState") == "not-found" {
            return Err(AttachError::NoUnit { name });
        }
        let state = self.text("ActiveState").to_owned();
        let pid = self.number("MainPID").map(i32::unsigned_abs);
        pid.ok_or(AttachError::NoMainProcess { name, state })
    }

    /// The signal by which systemd stops it.
    pub(crate) fn kill_signal(&self) -> i32 {
        self.number("KillSignal").unwrap_or(libc::SIGTERM)
    }

    /// How this process ended, if systemd has reaped it and has not started another since.
    fn status_of(&self, pid: u32) -> Option<Ended> {
        if self.number("ExecMainPID").map(i32::unsigned_abs) != Some(pid) {
            return None;
        }
        let status = self.text("ExecMainStatus").parse().ok()?;
        // The codes of waitid(2), as `si_code` has them.
        match self.number("ExecMainCode")? {
            libc::CLD_EXITED => Some(Ended::Code(status)),
            libc::CLD_KILLED | libc::CLD_DUMPED => Some(Ended::Signal(status)),
            _ => None,
        }
    }

    /// Waits until systemd has begun to stop the unit, which is when its processes get the signal.
    pub(crate) async fn stopping(name: &str, limit: Duration) -> Result<(), AttachError> {
        let deadline = Instant::now() + limit;
        while Self::of(name).await?.text("ActiveState") == "active" && Instant::now() < deadline {
            sleep(STEP / 4).await;
        }
        Ok(())
    }

    /// Waits until systemd tells how this process ended, which it learns when it reaps; returns that
    /// and whether systemd had lost its patience.
    pub(crate) async fn end_of(
        name: &str,
        pid: u32,
        limit: Duration,
    ) -> Result<(Option<Ended>, bool), AttachError> {
        let deadline = Instant::now() + limit;
        loop {
            let state = Self::of(name).await?;
            let status = state.status_of(pid);
            let is_another = state.number("ExecMainPID").map(i32::unsigned_abs) != Some(pid);
            if status.is_some() || is_another || Instant::now() > deadline {
                let killed = status == Some(Ended::Signal(libc::SIGKILL));
                return Ok((status, killed && state.text("Result") == "timeout"));
            }
            sleep(STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_of_the_process_that_was_asked_about() {
        let state = |code: u8, status: u8| {
            State::read(&format!(
                "MainPID=0\nExecMainPID=7\nExecMainCode={code}\nExecMainStatus={status}\n"
            ))
        };
        assert_eq!(state(1, 0).status_of(7), Some(Ended::Code(0)));
        assert_eq!(state(1, 143).status_of(7), Some(Ended::Code(143)));
        assert_eq!(state(2, 15).status_of(7), Some(Ended::Signal(15)));
        assert_eq!(state(0, 0).status_of(7), None, "not reaped yet");
        assert_eq!(state(1, 0).status_of(8), None, "another one's");
    }

    #[test]
    fn a_unit_that_is_not_there_or_does_not_run_is_told() {
        let told = |text: &str| {
            let found = State::read(text).main_process("web");
            found.map_err(|error| error.to_string())
        };
        assert_eq!(told("LoadState=loaded\nMainPID=42\n"), Ok(42));
        let absent = told("LoadState=not-found\nActiveState=inactive\nMainPID=0\n").unwrap_err();
        assert_eq!(absent, "systemd knows no unit called web");
        let idle = told("LoadState=loaded\nActiveState=failed\nMainPID=0\n").unwrap_err();
        assert!(idle.contains("no main process (it is failed)"), "{idle}");
    }
}
