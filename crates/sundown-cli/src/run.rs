//! `sundown run`: guards a process that cannot be changed.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sundown_guard::{Guard, OnGuardDeath, Restart};

use crate::signals::signal;

/// The hidden verb that makes this same program a keeper.
pub(crate) const KEEPER: &str = "__keeper";

/// Guard a service that cannot be changed: stop it without losing a request
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The longest a stop may take; what is left then is killed, and named
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// How long a connection has to be silent until its end costs nobody anything
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    quiet: Duration,
    /// When an application that ends by itself is started again: no, on-failure or always. Its listeners stay
    /// open meanwhile, and who waits in their queues is served by the next one
    #[arg(long, value_name = "WHEN", default_value = "on-failure", value_enum)]
    restart: When,
    /// How long the next generation may take until it listens
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    ready_within: Duration,
    /// What tells the application to stop: a name or a number
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM", value_parser = signal)]
    stop_signal: i32,
    /// What becomes of the application if this guard is killed
    #[arg(long, value_name = "SETTING", default_value = "stop", value_parser = on_guard_death)]
    on_guard_death: OnGuardDeath,
    /// What the service is called, in the log, the report and `sundown status`; made of the program's name if
    /// not given
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// The service, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const HELP: &str = "\
On SIGTERM or SIGINT newcomers are refused, whoever waits in the queue is served, and once every
connection rests the application is told to stop. A second signal hurries, a third kills.
On SIGHUP the application is started anew beside the running one; once it listens, it takes what
connects, and the one before finishes what it has. If it does not come to that, nothing changes.

  sundown run -- python3 -m http.server 8000
  sundown run --stop-signal SIGQUIT -- nginx -g 'daemon off;'

Its socket for `sundown status`, `restart` and `stop` is in SUNDOWN_RUN_DIR, or else in
$XDG_RUNTIME_DIR/sundown, for root in /run/sundown.

Exit codes:
  the application's, if it ends by itself (128 + N by signal N)
  0    it was told to stop, and everything ended in order
  2    bad arguments
  4    work was cut off
  126  it cannot be executed
  127  it is missing";

/// When an application is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    No,
    OnFailure,
    Always,
}

impl From<When> for Restart {
    fn from(when: When) -> Self {
        match when {
            When::No => Self::No,
            When::OnFailure => Self::OnFailure,
            When::Always => Self::Always,
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    match sundown_guard::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("give 1 to 40 of a to z, 0 to 9 and -".to_owned()),
    }
}

/// Made of the program's, and of the process's number where that is taken.
fn default_name(program: &Path) -> String {
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let name = sundown_guard::name_of(&program);
    match sundown_guard::is_running(&name) {
        true => {
            let number = std::process::id();
            sundown_guard::name_of(&format!("{}-{number}", &name[..name.len().min(30)]))
        }
        false => name,
    }
}

fn on_guard_death(text: &str) -> Result<OnGuardDeath, String> {
    OnGuardDeath::named(text).ok_or_else(|| "give stop or keep".to_owned())
}

/// What the guard starts beneath itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Keeper {
    socket: RawFd,
    #[arg(value_parser = on_guard_death)]
    on_guard_death: OnGuardDeath,
    stop_signal: i32,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

impl Keeper {
    pub(crate) fn run(self) -> ExitCode {
        sundown_guard::keep(
            self.socket,
            self.on_guard_death,
            self.stop_signal,
            self.command,
        )
    }
}

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let program = Path::new(&arguments.command[0]);
    let name = arguments.name.unwrap_or_else(|| default_name(program));
    Guard {
        // The very file that runs, also when another was put in its place.
        keeper: vec!["/proc/self/exe".into(), KEEPER.into()],
        name,
        drain: arguments.drain,
        ready_within: arguments.ready_within,
        restart: arguments.restart.into(),
        quiet: arguments.quiet,
        stop_signal: arguments.stop_signal,
        on_guard_death: arguments.on_guard_death,
        command: arguments.command,
    }
    .run()
}
