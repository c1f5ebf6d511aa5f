//! `sundown run`: guards a process that cannot be changed.

mod settings;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sundown_guard::{OnGuardDeath, Output, Passed, Ready, Restart};

use self::settings::ModeName;
use crate::signals::signal;

/// The hidden verb that makes this same program a keeper.
pub(crate) const KEEPER: &str = "__keeper";

/// Guard a service that cannot be changed: stop it without losing a request
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Where its settings are: a TOML file whose table [run] has the names of these flags, and `command`; flags
    /// count more [default: sundown.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the service is called, in the log, the report and `sundown status`; made of the program's name if
    /// not given, with the guard's PID behind it where another has that name
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,

    /// Start it in this folder
    #[arg(long, value_name = "FOLDER", help_heading = "How it is started")]
    cwd: Option<PathBuf>,
    /// Add what is in this file to its environment: lines NAME=VALUE, read anew for each generation
    #[arg(long, value_name = "FILE", help_heading = "How it is started")]
    env_file: Option<PathBuf>,
    /// How its listeners are known: `kernel`, which tells of each; `listen-fds`, which opens them by --listen and
    /// passes them; `auto`, which is listen-fds with --listen, and else kernel where that is possible [default: auto]
    #[arg(long, value_name = "MODE", help_heading = "How it is started")]
    mode: Option<ModeName>,
    /// Open this and pass it as systemd does (LISTEN_FDS): ADDRESS:PORT or NAME=ADDRESS:PORT; several times for
    /// several
    #[arg(long, value_name = "SOCKET", help_heading = "How it is started")]
    listen: Vec<Passed>,
    /// What becomes of what it prints: `inherit`, or `json` for lines of a log on stdout, a JSON object each, with the
    /// level and the generation, and without card numbers and credentials
    /// [default: inherit]
    #[arg(long, value_name = "FORM", help_heading = "How it is started")]
    output: Option<Output>,

    /// When a generation is ready: `listen`; `tcp`, once it has accepted a connection; a URL of one of its own
    /// ports, once that answers 200 to 399; `notify`, once it says READY=1 (sd_notify) [default: listen]
    #[arg(long, value_name = "WHEN", help_heading = "Restarts")]
    ready: Option<Ready>,
    /// How long the next generation may take until it is ready [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Restarts")]
    ready_within: Option<Duration>,
    /// Start the next generation only when the one before has ended: for what may run only once. Who connects
    /// meanwhile waits
    #[arg(long, help_heading = "Restarts")]
    no_overlap: bool,
    /// When an application that ends by itself is started again: no, on-failure or always. Its listeners stay
    /// open meanwhile, and who waits in their queues is served by the next one [default: on-failure]
    #[arg(long, value_name = "WHEN", help_heading = "Restarts")]
    restart: Option<Restart>,

    /// The longest a stop may take: an application that is still busy is told to stop in the last tenth of it (two
    /// seconds at the most), and what is left at its end is killed; the report names what was cut off [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Stops")]
    drain: Option<Duration>,
    /// How long a connection has to be silent until its end costs nobody anything [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Stops")]
    quiet: Option<Duration>,
    /// What tells the application to stop: a name or a number [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal, help_heading = "Stops")]
    stop_signal: Option<i32>,
    /// Run this by /bin/sh when a stop begins, before newcomers are refused; several times for several
    #[arg(long, value_name = "COMMAND", help_heading = "Stops")]
    pre_shutdown: Vec<String>,
    /// Run this by /bin/sh when the application has ended; several times for several
    #[arg(long, value_name = "COMMAND", help_heading = "Stops")]
    post_cleanup: Vec<String>,
    /// The longest each of these may take; then it is killed [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Stops")]
    hook_timeout: Option<Duration>,
    /// What becomes of the application if this guard is killed: stop or keep [default: stop]
    #[arg(long, value_name = "SETTING", help_heading = "Stops")]
    on_guard_death: Option<OnGuardDeath>,

    /// Serve probes, metrics and a page to those who run it, on this address
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,

    /// The service, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const HELP: &str = "\
On SIGTERM or SIGINT newcomers are refused, whoever waits in the queue is served, and once every
connection rests the application is told to stop. A second signal hurries, a third kills.
On SIGHUP the application is started anew beside the running one; once it is ready, it takes what
connects, and the one before finishes what it has. If it does not come to that, nothing changes.
Every other signal is the application's.

  sundown run -- python3 -m http.server 8000
  sundown run --stop-signal SIGQUIT -- nginx -g 'daemon off;'
  sundown run --ready http://localhost:8000/healthz -- gunicorn --bind 0.0.0.0:8000 app:app
  sundown run --listen 0.0.0.0:8080 --ready notify -- ./service-that-takes-LISTEN_FDS

Its socket for `sundown status`, `restart` and `stop` is in SUNDOWN_RUN_DIR, or else in
$XDG_RUNTIME_DIR/sundown, for root in /run/sundown.

Exit codes:
  the application's, if it ends by itself (128 + N by signal N)
  0    it was told to stop, and everything ended in order
  2    bad arguments or settings, or a socket or a mode that cannot be had
  4    work was cut off
  126  it cannot be executed
  127  it is missing";

fn name(text: &str) -> Result<String, String> {
    match sundown_guard::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("give 1 to 40 of a to z, 0 to 9 and -".to_owned()),
    }
}

/// Made of the program's.
fn default_name(program: &Path) -> String {
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    sundown_guard::name_of(&program)
}

/// What the guard starts beneath itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Keeper {
    socket: RawFd,
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
    match settings::guard(arguments) {
        Ok(guard) => guard.run(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
