//! `sundown verify`: which promises a service keeps when it is told to stop.

mod compare;
mod html;
mod interrupts;
mod json;
mod junit;
mod paint;
mod settings;
mod target;
mod words;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ColorChoice;
use indicatif::{ProgressBar, ProgressStyle};
use sundown_verify::check::Need;
use sundown_verify::process::SignalTo;
use sundown_verify::service::SecondSignal;
use sundown_verify::suite::{Judged, Told};
use sundown_verify::{Check, Level, Suite, Target, Verdict as Found, checks, private_net};

use self::compare::Environment;
use self::interrupts::Interrupts;
use self::paint::Paint;
use self::settings::File;
use self::target::{CommandLine, Url};
use crate::Verdict;

/// Prove how a service stops: start it, use it, stop it, and tell what it lost
///
/// The service is started on a free port once for every stop: `{port}` in the command stands for it,
/// and PORT in its environment says the same. Each check says what it promises, how often the fault
/// could have shown, and what to do about a failure: see `--list` and `--explain`.
///
/// What runs already is attached to by --pid, by --unit, or by --url and --stop. It gets the stop and no
/// more, which is told before anything is done; checks that such a target cannot serve are skipped,
/// with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The command that starts the service, and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,

    /// Attach to this process, which is stopped once and not started again; its address is found from
    /// its sockets. Its exit status and its children are not seen, and it is never killed
    #[arg(
        long,
        value_name = "PID",
        conflicts_with_all = ["command", "unit", "stop", "again", "compare"],
        help_heading = "Attach to what runs",
        env = "SUNDOWN_VERIFY_PID"
    )]
    pid: Option<u32>,
    /// Attach to this unit of systemd, which is stopped and started as often as checks need, and left
    /// running
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["command", "stop", "again", "signal_to", "compare"],
        help_heading = "Attach to what runs",
        env = "SUNDOWN_VERIFY_UNIT"
    )]
    unit: Option<String>,
    /// Where it is reached, http://HOST:PORT or https://HOST:PORT: beside --stop, or where --pid and --unit do not tell
    #[arg(
        long,
        value_name = "URL",
        value_parser = target::url,
        conflicts_with_all = ["command", "compare"],
        help_heading = "Attach to what runs",
        env = "SUNDOWN_VERIFY_URL"
    )]
    url: Option<Url>,
    /// The command that stops what is known by its --url only, such as a container. That has ended once
    /// the command has, and nobody listens: one that waits, as `docker stop` does, is best
    #[arg(
        long,
        value_name = "CMD",
        value_parser = target::command_line,
        conflicts_with_all = ["command", "signal", "signal_to", "compare"],
        help_heading = "Attach to what runs",
        env = "SUNDOWN_VERIFY_STOP"
    )]
    stop: Option<CommandLine>,
    /// The command that starts it again after --stop, and then ends, such as `docker start`: so that it
    /// can be stopped as often as checks need. It is left running
    #[arg(
        long,
        value_name = "CMD",
        value_parser = target::command_line,
        conflicts_with_all = ["command", "compare"],
        help_heading = "Attach to what runs",
        env = "SUNDOWN_VERIFY_AGAIN"
    )]
    again: Option<CommandLine>,

    /// A target that answers at once [default: /]
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_FAST"
    )]
    fast: Option<String>,
    /// A target that takes some hundred milliseconds
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_SLOW"
    )]
    slow: Option<String>,
    /// A target that answers with megabytes
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_BIG"
    )]
    big: Option<String>,
    /// A target that takes a body by POST
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_UPLOAD"
    )]
    upload: Option<String>,
    /// A target that does not answer within twice the grace
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_ENDLESS"
    )]
    endless: Option<String>,
    /// A target whose body never ends
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_STREAM"
    )]
    stream: Option<String>,
    /// A target that sends server-sent events and never ends
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_SSE"
    )]
    sse: Option<String>,
    /// A target that accepts a WebSocket
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_WS"
    )]
    ws: Option<String>,
    /// A target that tells whether it wants more work, as a readiness probe asks
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_READY"
    )]
    ready: Option<String>,
    /// A target that tells whether it is alive, as a liveness probe asks
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_LIVE"
    )]
    live: Option<String>,
    /// A target that stores what is posted to it; {id} in it or in the body is the entry's id
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_LEDGER"
    )]
    ledger: Option<String>,
    /// The body of such a post [default: {"id":"{id}"}]
    #[arg(
        long,
        value_name = "JSON",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_LEDGER_BODY"
    )]
    ledger_body: Option<String>,
    /// A target that answers a GET with an entry, once the service runs again
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_LEDGER_READ"
    )]
    ledger_read: Option<String>,
    /// A command that judges what is stored, once the service has ended: the ids that were acknowledged
    /// are in the file SUNDOWN_ACKNOWLEDGED, one a line
    #[arg(long, value_name = "CMD", value_parser = target::command_line, help_heading = "What the service may be asked", env = "SUNDOWN_VERIFY_INVARIANT")]
    invariant: Option<CommandLine>,
    /// A command that restarts the service where it stands: {pid} and {port} are its own
    #[arg(long, value_name = "CMD", value_parser = target::command_line, help_heading = "What the service may be asked", env = "SUNDOWN_VERIFY_RESTART")]
    restart: Option<CommandLine>,
    /// A gRPC method that takes an empty message, best one that streams without end, such as
    /// /grpc.health.v1.Health/Watch
    #[arg(
        long,
        value_name = "METHOD",
        value_parser = settings::method,
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_GRPC"
    )]
    grpc: Option<String>,
    /// It speaks HTTP/2, too: with prior knowledge (h2c), and under --tls by ALPN
    #[arg(
        long,
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_HTTP2"
    )]
    http2: bool,
    /// It speaks HTTP/2 alone, as gRPC servers do
    #[arg(
        long,
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_NO_HTTP1"
    )]
    no_http1: bool,
    /// It speaks TLS on its port; its certificate is not verified
    #[arg(
        long,
        help_heading = "What the service may be asked",
        env = "SUNDOWN_VERIFY_TLS"
    )]
    tls: bool,

    /// The signal that asks it to stop: TERM, INT, QUIT, HUP, USR1, USR2, or a number [default: TERM,
    /// or the unit's KillSignal]
    #[arg(long, value_name = "SIGNAL", value_parser = crate::signals::signal, help_heading = "How the service stops", env = "SUNDOWN_VERIFY_SIGNAL")]
    signal: Option<i32>,
    /// Who gets the signal: the process that is started, as from a supervisor, or its whole group, as
    /// from a terminal
    #[arg(
        long,
        value_name = "WHO",
        value_enum,
        default_value_t = To::Leader,
        help_heading = "How the service stops",
        env = "SUNDOWN_VERIFY_SIGNAL_TO"
    )]
    signal_to: To,
    /// Exit codes that say that the stop was meant, too, beside 0 and 128 + the signal
    #[arg(
        long,
        value_name = "CODES",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(0..=255),
        help_heading = "How the service stops",
        env = "SUNDOWN_VERIFY_EXIT_CODE"
    )]
    exit_code: Vec<i32>,
    /// What a second signal does; declared, it is judged: with --slow, and `hurries` with --endless, too
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        help_heading = "How the service stops",
        env = "SUNDOWN_VERIFY_SECOND_SIGNAL"
    )]
    second_signal: Option<Second>,
    /// How long its stop may take [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = settings::duration, help_heading = "How the service stops", env = "SUNDOWN_VERIFY_GRACE")]
    grace: Option<Duration>,
    /// How long it still serves who connects after the signal, while load balancers take notice
    #[arg(long, value_name = "DURATION", value_parser = settings::duration, help_heading = "How the service stops", env = "SUNDOWN_VERIFY_LAME_DUCK")]
    lame_duck: Option<Duration>,
    /// How long its start may take [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = settings::duration, help_heading = "How the service stops", env = "SUNDOWN_VERIFY_START")]
    start: Option<Duration>,
    /// Start the service in a network namespace of its own, and tell what the kernel counted from the
    /// signal on: resets, dropped handshakes. There is the loopback interface only: no other host, such
    /// as a database, is reached, and limits such as somaxconn are the kernel's defaults. Our clients are
    /// in there, too, and are counted with the service
    #[arg(
        long,
        help_heading = "How the service is seen",
        env = "SUNDOWN_VERIFY_PRIVATE_NET"
    )]
    private_net: bool,
    /// Read what the service may be asked, and how it stops, from this file: each flag's name is a key
    /// [default: sundown.verify.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SUNDOWN_VERIFY_CONFIG")]
    config: Option<PathBuf>,

    /// Play only these checks: ids, or sections such as `http1`
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        help_heading = "What is checked",
        env = "SUNDOWN_VERIFY_ONLY"
    )]
    only: Vec<String>,
    /// How often each check is played; verdicts that differ are FLAKY
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), help_heading = "What is checked", env = "SUNDOWN_VERIFY_RUNS")]
    runs: u16,
    /// Let a SHOULD that fails fail the whole
    #[arg(long, help_heading = "What is checked", env = "SUNDOWN_VERIFY_STRICT")]
    strict: bool,
    /// List the checks and exit
    #[arg(long, conflicts_with = "command", help_heading = "What is checked")]
    list: bool,
    /// Explain one check and exit
    #[arg(
        long,
        value_name = "ID",
        conflicts_with = "command",
        help_heading = "What is checked"
    )]
    explain: Option<String>,

    /// Play the same on another environment, and tell the differences: docker='docker run …'
    #[arg(long, value_name = "NAME=CMD", value_parser = compare::environment, conflicts_with_all = ["json", "junit", "html"], help_heading = "What is checked")]
    compare: Vec<Environment>,

    /// Whether verdicts are coloured: `auto` is at a terminal, unless NO_COLOR is set, or anywhere with CLICOLOR_FORCE
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t = ColorChoice::Auto,
        env = "SUNDOWN_VERIFY_COLOR"
    )]
    color: ColorChoice,
    /// Write the results as JSON to this file; `-` is stdout, instead of the text
    #[arg(long, value_name = "FILE", env = "SUNDOWN_VERIFY_JSON")]
    json: Option<PathBuf>,
    /// Write the results as JUnit's XML to this file
    #[arg(long, value_name = "FILE", env = "SUNDOWN_VERIFY_JUNIT")]
    junit: Option<PathBuf>,
    /// Write the results, and what clients did, as a page that loads nothing to this file
    #[arg(long, value_name = "FILE", env = "SUNDOWN_VERIFY_HTML")]
    html: Option<PathBuf>,
}

/// Who gets the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    Leader,
    Group,
}

impl From<To> for SignalTo {
    fn from(to: To) -> Self {
        match to {
            To::Leader => Self::Leader,
            To::Group => Self::Group,
        }
    }
}

/// What a second signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Second {
    /// The stop goes on as after one
    Nothing,
    /// The process is gone 2 s later, whatever is in flight
    Hurries,
}

impl From<Second> for SecondSignal {
    fn from(second: Second) -> Self {
        match second {
            Second::Nothing => Self::Nothing,
            Second::Hurries => Self::Hurries,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  sundown verify -- ./server --port {port}
  sundown verify --slow '/slow?ms=500' --grace 25s -- node server.js
  sundown verify --only listener,http1/2 --runs 10 -- ./server {port}
  sundown verify --private-net -- ./server {port}
  sundown verify --compare 'npm=npm start' -- node server.js
  sundown verify --pid \"$(pgrep -o nginx)\" --signal QUIT
  sundown verify --unit web.service --slow /report --grace 90s
  sundown verify --url http://127.0.0.1:8080 --stop 'docker stop web' --again 'docker start web'

Exit codes:
  0  every MUST passes (under --strict every SHOULD, too)
  1  one fails
  2  the service could not be judged: bad arguments, or it does not start
  3  too little was seen to tell";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    if arguments.list {
        print!("{}", words::list());
        return Ok(Verdict::Kept);
    }
    if let Some(id) = &arguments.explain {
        print!("{}", words::explain(find(id)?));
        return Ok(Verdict::Kept);
    }
    let file = File::of(arguments)?;
    let choice = target::choose(arguments, &file)?;
    let tls = choice.speaks_tls();
    let chosen = chosen(&arguments.only)?;
    let in_private_net = settings::private_net(arguments, &file);
    if in_private_net {
        // Before there is a second thread.
        private_net::enter().map_err(|refused| anyhow!(words::no_private_net(refused)))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let suite = |target: Target| -> anyhow::Result<Suite> {
        let mut service = settings::service(arguments, file.clone(), target)?;
        service.offers.tls |= tls;
        let suite = Suite::new(service, chosen.clone(), arguments.runs.into());
        Ok(match in_private_net {
            true => suite.in_private_net(),
            false => suite,
        })
    };
    if arguments.compare.is_empty() {
        let target = runtime.block_on(choice.attach(arguments.signal_to.into()))?;
        let suite = suite(target)?;
        let judged = runtime.block_on(until_interrupted(&suite, arguments.color))?;
        report(arguments, &suite.service().target, &judged)?;
        return Ok(verdict(&judged, arguments.strict));
    }
    let mut environments = vec![Environment {
        name: compare::FIRST.to_owned(),
        command: arguments.command.clone(),
    }];
    environments.extend(arguments.compare.iter().cloned());
    compare::distinct(&environments)?;
    let mut judged = Vec::new();
    for environment in &environments {
        eprintln!("{}:", environment.name);
        let suite = suite(Target::Command(environment.command.clone()))?;
        let one = runtime.block_on(until_interrupted(&suite, arguments.color));
        judged.push(one.with_context(|| environment.name.clone())?);
    }
    let paint = Paint::of(arguments.color, &io::stdout());
    print!("{}", compare::table(&environments, &judged, paint));
    Ok(worst(
        judged.iter().map(|one| verdict(one, arguments.strict)),
    ))
}

/// Whatever is broken in one environment is broken.
fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let weight = |verdict: &Verdict| match verdict {
        Verdict::Kept => 0,
        Verdict::Inconclusive => 1,
        Verdict::Broken => 2,
    };
    verdicts.max_by_key(weight).unwrap_or(Verdict::Inconclusive)
}

/// Plays the suite; Ctrl-C ends it, and the service with it if it is ours.
async fn until_interrupted(suite: &Suite, color: ColorChoice) -> anyhow::Result<Judged> {
    // Before anything is done to what is not ours.
    let mut interrupts = Interrupts::hear()?;
    let service = suite.service();
    if let Some(note) = words::before(service) {
        eprintln!("{note}");
    }
    let progress =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(100));
    let paint = Paint::of(color, &io::stderr());
    let told = |told: Told<'_>| match told {
        Told::Stop { number, checks } => progress.set_message(words::under_way(number, checks)),
        Told::Judged(judgement) => progress.println(words::line(judgement, paint)),
    };
    let judged = tokio::select! {
        judged = suite.run(told) => judged.map_err(anyhow::Error::from),
        () = interrupts.any() => Err(anyhow!("interrupted; {}", words::left(&service.target))),
    };
    progress.finish_and_clear();
    if let Err(error) = service.leave_running().await {
        eprintln!("note: it could not be started again: {error}");
    }
    if let Ok(Judged {
        wrapped: Some(child),
        ..
    }) = &judged
    {
        eprintln!("{}", words::wrapped(child));
    }
    if judged.as_ref().is_ok_and(|judged| judged.stayed) {
        eprintln!("{}", words::stayed(&service.target));
    }
    judged
}

fn report(arguments: &Arguments, target: &Target, judged: &Judged) -> anyhow::Result<()> {
    let paint = Paint::of(arguments.color, &io::stdout());
    match &arguments.json {
        Some(file) if file.as_os_str() == "-" => {
            println!("{}", json::document(arguments, target, judged))
        }
        Some(file) => {
            write(file, &(json::document(arguments, target, judged) + "\n"))?;
            print!("{}", words::report(judged, paint));
        }
        None => print!("{}", words::report(judged, paint)),
    }
    if let Some(file) = &arguments.junit {
        write(file, &junit::document(judged, arguments.strict)?)?;
    }
    if let Some(file) = &arguments.html {
        write(file, &html::document(arguments, target, judged))?;
    }
    Ok(())
}

fn write(file: &Path, document: &str) -> anyhow::Result<()> {
    std::fs::write(file, document)
        .with_context(|| format!("{} could not be written", file.display()))
}

/// Tells whether a failure at this level fails the whole.
fn weighs(level: Level, strict: bool) -> bool {
    level == Level::Must || strict && level == Level::Should
}

fn verdict(judged: &Judged, strict: bool) -> Verdict {
    let heavy = || {
        judged
            .judgements
            .iter()
            .filter(|judgement| weighs(judgement.check.level, strict))
    };
    if heavy().any(|judgement| matches!(judgement.verdict, Found::Fail | Found::Flaky)) {
        Verdict::Broken
    } else if heavy().any(|judgement| judgement.verdict == Found::Inconclusive) {
        Verdict::Inconclusive
    } else {
        Verdict::Kept
    }
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Check>> {
    for wanted in only {
        if !checks::all().any(|check| is_of(check, wanted)) {
            bail!("no check and no section is named {wanted}; see sundown verify --list");
        }
    }
    let wanted = |check: &&Check| only.is_empty() || only.iter().any(|wanted| is_of(check, wanted));
    Ok(checks::all().filter(wanted).collect())
}

fn is_of(check: &Check, wanted: &str) -> bool {
    check.id == wanted || words::section(check) == wanted
}

fn find(id: &str) -> anyhow::Result<&'static Check> {
    let found = checks::all().find(|check| check.id == id);
    found.with_context(|| format!("no check is named {id}; see sundown verify --list"))
}

/// What a check cannot do without, as flags, or in words.
fn needs(check: &Check) -> Vec<&'static str> {
    check.needs.iter().copied().map(Need::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_chosen_by_id_and_by_section() {
        let ids = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
            chosen(&only)
                .unwrap()
                .iter()
                .map(|check| check.id)
                .collect()
        };
        assert_eq!(ids(&["http1/2"]), ["http1/2"]);
        assert!(ids(&["listener"]).len() > 1);
        assert_eq!(ids(&[]).len(), checks::all().count());
        assert!(chosen(&["http9".to_owned()]).is_err());
    }
}
