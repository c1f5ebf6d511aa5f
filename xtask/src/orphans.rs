//! `cargo xtask orphans`: what a guard leaves behind that is killed at a random instant.
//!
//! Each round starts `sundown run` over a small server, lets it start, restart or stop it, and kills it by
//! SIGKILL meanwhile. Whom the server and its keepers become is seen by a parent that adopts all of them, and by
//! a mark in their environment; that nothing of it hangs, by asking the server. Never takes the guard's word.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use sundown_verify::process::{Descendant, Spawn, free_port};
use sundown_verify::{Process, Refuse};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::folder::Folder;
use crate::guarded::build_command;
use crate::guarded::rights::Rights;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Kill guards at random instants of starts, restarts and stops, and see what they leave behind
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many guards are killed, in turn while they start, restart and stop a server, and with each setting
    /// of --on-guard-death
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_KILLS")]
    kills: u32,
    /// Choose instants from this number on
    #[arg(long, value_name = "N", default_value_t = 1, env = "XTASK_SEED")]
    seed: u64,
    #[command(flatten)]
    rights: Rights,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// How long anything may take: a keeper gives what it stops ten seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often /proc is looked at; it tells nobody of changes.
const TICK: Duration = Duration::from_millis(20);

const SERVER: &str = include_str!("orphans/server.py");

/// Every process of a round has it in its environment.
const MARK: &str = "SUNDOWN_ORPHANS";

/// What a guard is at when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Start,
    Restart,
    Stop,
}

const PHASES: [Phase; 3] = [Phase::Start, Phase::Restart, Phase::Stop];

/// The settings of `--on-guard-death`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Setting {
    Stop,
    Keep,
}

const SETTINGS: [Setting; 2] = [Setting::Stop, Setting::Keep];

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

/// What was found after the kills in one phase with one setting.
#[derive(Debug, Serialize)]
struct Row {
    on_guard_death: Setting,
    killed_during: Phase,
    kills: u32,
    /// Guards that had ended by themselves when they were to be killed.
    over_before: u32,
    /// Rounds in which the server served on.
    lived_on: u32,
    /// Rounds in which that was not as it was set.
    unlike_setting: u32,
    /// Processes in state T.
    frozen: usize,
    /// Processes that should not have been left.
    left: usize,
    /// A `bind` or a look-up that did not work, or an answer that did not come.
    failed_calls: u32,
    examples: Vec<String>,
}

impl Row {
    fn new(on_guard_death: Setting, killed_during: Phase) -> Self {
        Self {
            on_guard_death,
            killed_during,
            kills: 0,
            over_before: 0,
            lived_on: 0,
            unlike_setting: 0,
            frozen: 0,
            left: 0,
            failed_calls: 0,
            examples: Vec::new(),
        }
    }

    fn holds(&self) -> bool {
        self.unlike_setting == 0 && self.frozen == 0 && self.left == 0 && self.failed_calls == 0
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    build_command(workspace)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let folder = Folder::new("orphans")?;
    arguments.rights.open(&folder)?;
    fs::write(folder.path().join("server.py"), SERVER)?;
    let killing = Killing {
        sundown: arguments.rights.sundown(workspace),
        refused: arguments.rights.refused(),
        python: python(arguments.rights)?,
        folder: folder.path(),
    };
    let rows = runtime.block_on(killing.rows(arguments))?;
    progress::clear();
    if arguments.json {
        let seed = arguments.seed;
        println!(
            "{}",
            serde_json::json!({"schema": 1, "seed": seed, "rows": rows})
        );
    } else {
        print(&rows, arguments.seed);
    }
    Ok(match rows.iter().all(Row::holds) {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

/// The interpreter itself: what stands for it on the PATH may be a script. The first on the PATH may be one that an
/// ordinary user cannot reach.
fn python(rights: Rights) -> anyhow::Result<PathBuf> {
    for name in ["python3", "/usr/bin/python3"] {
        let words = rights.with(name);
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        if let Ok(output) = output
            && output.status.success()
        {
            return Ok(String::from_utf8(output.stdout)?.trim().into());
        }
    }
    bail!(
        "python3 is missing, which the guarded server is written for: install Debian's package python3"
    )
}

struct Killing<'a> {
    sundown: Vec<OsString>,
    refused: Refuse,
    python: PathBuf,
    folder: &'a Path,
}

/// How long a guard takes for what it is killed in.
struct Spans {
    start: Duration,
    restart: Duration,
    stop: Duration,
}

impl Spans {
    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Start => self.start,
            Phase::Restart => self.restart,
            Phase::Stop => self.stop,
        }
    }
}

impl Killing<'_> {
    async fn rows(&self, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for on_guard_death in SETTINGS {
            rows.extend(PHASES.map(|phase| Row::new(on_guard_death, phase)));
        }
        let mut rng = StdRng::seed_from_u64(arguments.seed);
        let spans = self.spans().await?;
        for number in 1..=arguments.kills {
            let at = (number as usize - 1) % rows.len();
            let row = &mut rows[at];
            let phase = row.killed_during;
            progress::line(&format!(
                "kill {number} of {}: {phase:?}, {}",
                arguments.kills,
                row.on_guard_death.name()
            ));
            let instant = spans.of(phase).mul_f64(rng.random_range(0.0..=1.0));
            let server = Guarded::start(self, number, row.on_guard_death)?;
            row.kills += 1;
            let context = || format!("kill {number}, {instant:?} after the {phase:?} began");
            let round = server.round(phase, instant, row).await;
            round.with_context(context)?;
        }
        Ok(rows)
    }

    /// Lets a guard do everything once.
    async fn spans(&self) -> anyhow::Result<Spans> {
        let mut server = Guarded::start(self, 0, Setting::Stop)?;
        let span = |began: Instant| began.elapsed();
        let began = Instant::now();
        server.begins(Phase::Start).await?;
        server.listens().await?;
        let start = span(began);
        let _busy = server.begins(Phase::Restart).await?;
        let began = Instant::now();
        let over = "generation 1 has ended after";
        server.guard.wait_output(over, PATIENCE).await?;
        let restart = span(began);
        let _busy = server.begins(Phase::Stop).await?;
        let began = Instant::now();
        server.guard.wait_exit(PATIENCE).await?;
        Ok(Spans {
            start,
            restart,
            stop: span(began),
        })
    }
}

/// A guard, all that it starts, and what its server writes down.
struct Guarded {
    guard: Process,
    mark: String,
    port: u16,
    journal: PathBuf,
}

/// What the processes that a guard has left come to.
enum End {
    AllGone,
    /// They serve: a new connection is answered so.
    Serves(String),
}

impl Guarded {
    fn start(killing: &Killing<'_>, number: u32, setting: Setting) -> anyhow::Result<Self> {
        let port = free_port()?.port();
        let mark = format!("{}-{number}", std::process::id());
        let journal = killing.folder.join(format!("journal-{number}"));
        let guard = Spawn::new(&killing.sundown[0])
            .args(&killing.sundown[1..])
            .refuse(killing.refused)
            .env(MARK, &mark)
            .env("SUNDOWN_RUN_DIR", killing.folder.join("guards"))
            .args(["run", "--name", &format!("orphans-{number}")])
            .args(["--quiet", "200ms", "--on-guard-death", setting.name()])
            .arg("--")
            .arg(&killing.python)
            .arg(killing.folder.join("server.py"))
            .arg(port.to_string())
            .arg(&journal)
            .whole()
            .start()?;
        Ok(Self {
            guard,
            mark,
            port,
            journal,
        })
    }

    /// Lets a phase begin; whoever still waits for an answer then holds it up.
    async fn begins(&mut self, phase: Phase) -> anyhow::Result<Option<TcpStream>> {
        let signal = match phase {
            Phase::Start => return Ok(None),
            Phase::Restart => libc::SIGHUP,
            Phase::Stop => libc::SIGTERM,
        };
        self.listens().await?;
        let mut busy = TcpStream::connect(("127.0.0.1", self.port)).await?;
        busy.write_all(b"slow\n").await?;
        self.guard.signal(signal)?;
        Ok(Some(busy))
    }

    async fn listens(&mut self) -> anyhow::Result<()> {
        let listens = "generation 1 listens on";
        Ok(self.guard.wait_output(listens, PATIENCE).await?)
    }

    /// Kills the guard, sees what comes of what it leaves, and ends that.
    async fn round(mut self, phase: Phase, instant: Duration, row: &mut Row) -> anyhow::Result<()> {
        let busy = self.begins(phase).await?;
        sleep(instant).await;
        let started = self.guard.stderr().contains("generation 1 is PID");
        let serving = self.journal("ready ");
        row.over_before += u32::from(self.guard.signal(libc::SIGKILL).is_err());
        self.guard.wait_exit(PATIENCE).await?;
        drop(busy);

        let end = match row.on_guard_death {
            Setting::Stop => self.all_gone().await.then_some(End::AllGone),
            Setting::Keep => self.settles().await,
        };
        let lives = !matches!(end, Some(End::AllGone));
        row.lived_on += u32::from(lives);
        let must_live = row.on_guard_death == Setting::Keep
            && (phase == Phase::Restart || phase == Phase::Start && started);
        let may_live = row.on_guard_death == Setting::Keep;
        if lives && !may_live || !lives && must_live {
            row.unlike_setting += 1;
            row.example(self.describe("unlike the setting"));
        }
        if let Some(End::Serves(answer)) = &end
            && answer != "ok"
        {
            row.failed_calls += 1;
            row.example(self.describe(answer));
        }
        self.look_at_who_is_left(lives && may_live, row).await;
        if lives && may_live {
            self.end_the_server();
            if !self.all_gone().await {
                row.left += self.left().len();
                row.example(self.describe("left when the server has ended"));
            }
        }
        self.read_last_words(&serving, row);
        Ok(())
    }

    /// One generation, where one may live; nobody, where none may.
    async fn look_at_who_is_left(&self, may_live: bool, row: &mut Row) {
        let deadline = Instant::now() + PATIENCE;
        let wanted = usize::from(may_live);
        let keepers = || self.left().iter().filter(|who| is_keeper(who)).count();
        // A generation that is not to live on has its time to end.
        while keepers() > wanted && Instant::now() < deadline {
            sleep(TICK).await;
        }
        let left = self.left();
        let frozen = left.iter().filter(|who| is_frozen(who.pid)).count();
        let surplus = match may_live {
            true => keepers().saturating_sub(wanted),
            false => left.len(),
        };
        row.frozen += frozen;
        row.left += surplus;
        if frozen + surplus > 0 {
            row.example(self.describe("left"));
        }
    }

    /// Waits until nobody is left; false if somebody stays.
    async fn all_gone(&self) -> bool {
        let gone = async {
            while !self.left().is_empty() {
                sleep(TICK).await;
            }
        };
        timeout(PATIENCE, gone).await.is_ok()
    }

    /// Waits until nobody is left or the server answers; nothing if neither comes.
    async fn settles(&self) -> Option<End> {
        let settles = async {
            loop {
                if self.left().is_empty() {
                    return End::AllGone;
                }
                if let Ok(answer) = self.probe().await {
                    return End::Serves(answer);
                }
                sleep(TICK).await;
            }
        };
        timeout(PATIENCE, settles).await.ok()
    }

    async fn probe(&self) -> anyhow::Result<String> {
        let mut client = TcpStream::connect(("127.0.0.1", self.port)).await?;
        client.write_all(b"probe\n").await?;
        let mut answer = String::new();
        BufReader::new(client).read_line(&mut answer).await?;
        if answer.is_empty() {
            bail!("it hung up");
        }
        Ok(answer.trim().to_owned())
    }

    /// Everybody that descends from the guard, or has the mark of this round.
    fn left(&self) -> Vec<Descendant> {
        let mut left = self.guard.descendants();
        for pid in marked(&self.mark) {
            let known = left.iter().any(|who| who.pid == pid) || pid == self.guard.id();
            if !known && !has_ended(pid) {
                let command = "marked, but no descendant".to_owned();
                left.push(Descendant { pid, command });
            }
        }
        left
    }

    fn end_the_server(&self) {
        let serving = self.journal("ready ");
        let left = self.left();
        let servers = left
            .iter()
            .filter(|who| serving.contains(&who.pid.to_string()));
        for server in servers {
            // SAFETY: kill takes two numbers; this descendant was there a moment ago.
            unsafe { libc::kill(server.pid as libc::pid_t, libc::SIGTERM) };
        }
    }

    /// What its server has written down behind a word.
    fn journal(&self, word: &str) -> Vec<String> {
        let lines = fs::read_to_string(&self.journal).unwrap_or_default();
        let rest = lines.lines().filter_map(|line| line.strip_prefix(word));
        rest.map(str::to_owned).collect()
    }

    /// Who served, and was told to end in order, has bound a socket and looked a name up before it did.
    fn read_last_words(&self, serving: &[String], row: &mut Row) {
        let words = self.journal("bye ");
        for words in words.iter().filter(|words| !words.ends_with(" ok")) {
            row.failed_calls += 1;
            row.example(self.describe(words));
        }
        // A service that stops is killed with its guard.
        let silent = |pid: &&String| words.iter().all(|words| !words.starts_with(&**pid));
        for pid in serving.iter().filter(silent) {
            if row.killed_during != Phase::Stop {
                row.failed_calls += 1;
                row.example(self.describe(&format!("{pid} did not end in order")));
            }
        }
    }

    fn describe(&self, what: &str) -> String {
        let left: Vec<String> = self.left().iter().map(ToString::to_string).collect();
        let said = self.guard.stderr();
        let last = said.lines().last().unwrap_or("nothing");
        format!(
            "{what}; left: [{}]; the guard said: {last}",
            left.join(", ")
        )
    }
}

impl Row {
    /// Bounds the list of examples.
    const MAX_EXAMPLES: usize = 5;

    fn example(&mut self, example: String) {
        if self.examples.len() < Self::MAX_EXAMPLES {
            self.examples.push(example);
        }
    }
}

fn is_keeper(who: &Descendant) -> bool {
    who.command.contains(" __keeper ")
}

/// Lists who has this mark in its environment.
fn marked(mark: &str) -> Vec<u32> {
    let entry = format!("{MARK}={mark}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == entry.as_bytes())
    };
    pids.filter(is_marked).collect()
}

fn is_frozen(pid: u32) -> bool {
    matches!(state(pid), Some('T' | 't'))
}

fn has_ended(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

/// The state of a process (proc_pid_stat(5)).
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn print(rows: &[Row], seed: u64) {
    println!(
        "{:12} {:8} {:>6} {:>12} {:>9} {:>15} {:>7} {:>6} {:>13}",
        "killed while",
        "setting",
        "kills",
        "over before",
        "lived on",
        "unlike setting",
        "frozen",
        "left",
        "failed calls"
    );
    for row in rows {
        println!(
            "{:12} {:8} {:>6} {:>12} {:>9} {:>15} {:>7} {:>6} {:>13}",
            format!("{:?}", row.killed_during).to_lowercase(),
            row.on_guard_death.name(),
            row.kills,
            row.over_before,
            row.lived_on,
            row.unlike_setting,
            row.frozen,
            row.left,
            row.failed_calls
        );
        for example in &row.examples {
            println!("    e.g. {example}");
        }
    }
    println!("seed {seed}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_or_fails_breaks_the_promise() {
        let spoil: [fn(&mut Row); 4] = [
            |row| row.unlike_setting = 1,
            |row| row.frozen = 1,
            |row| row.left = 1,
            |row| row.failed_calls = 1,
        ];
        for spoil in spoil {
            let mut row = Row::new(Setting::Keep, Phase::Restart);
            row.lived_on = 1;
            assert!(row.holds());
            spoil(&mut row);
            assert!(!row.holds(), "{row:?}");
        }
    }

    #[test]
    fn a_process_is_found_by_its_mark_and_seen_to_be_frozen() {
        let mark = format!("test-{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("60")
            .env(MARK, &mark)
            .spawn()
            .unwrap();
        let pid = child.id();
        // Within execve(2) a process has no environment for a moment.
        while marked(&mark).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(marked(&mark), [pid]);
        assert!(!is_frozen(pid) && !has_ended(pid));
        let mut status = 0;
        // SAFETY: it is our child, and `status` outlives the call.
        unsafe {
            libc::kill(pid as libc::pid_t, libc::SIGSTOP);
            libc::waitpid(pid as libc::pid_t, &raw mut status, libc::WUNTRACED);
        }
        assert!(is_frozen(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(pid) && marked(&mark).is_empty());
    }
}
