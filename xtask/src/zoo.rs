//! `cargo xtask zoo`: the suite on every peer, and the page of what it found.
//!
//! What this machine cannot build is told as such. Judges nobody but ourselves: how others stop is
//! theirs to mend.

mod html;
mod markdown;
mod subject;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sundown_verify::suite::{Judged, Told};
use sundown_verify::{Check, Level, Suite, Verdict as Found, checks};

use crate::folder::Folder;
use crate::guarded::build_command;
use crate::guarded::rights::Rights;
use crate::workspace::Workspace;
use crate::{Verdict, progress};
use subject::Subject;

/// Run the suite on every peer and on the shop, and write docs/zoo.md and docs/zoo.html; or, with --guarded,
/// on servers without and with `sundown run`, and write docs/guarded.md and docs/guarded.html
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these: peers, nginx-term, nginx-quit, shop
    #[arg(value_name = "NAME", env = "XTASK_ZOO")]
    names: Vec<String>,
    /// Each by itself and under `sundown run`: by default servers that do nothing at a stop, and the checks of
    /// the listener, the signal, the process and the budget
    #[arg(long, env = "XTASK_ZOO_GUARDED")]
    guarded: bool,
    /// Guard as an ordinary user without capabilities, if this runs as root
    #[arg(long, env = "XTASK_ORDINARY_USER", requires = "guarded")]
    ordinary_user: bool,
    /// How often each check is played
    #[arg(long, value_name = "N", default_value_t = 3, env = "XTASK_RUNS")]
    runs: usize,
    /// Play only these checks, or sections
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    only: Vec<String>,
    /// Write into this folder [default: docs for the whole zoo, target/zoo for a part of it]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

impl Arguments {
    fn topic(&self) -> &'static Topic {
        match self.guarded {
            true => &UNDER_THE_GUARD,
            false => &HOW_SERVERS_STOP,
        }
    }

    /// A part must not take the place of the whole.
    fn into(&self) -> &Path {
        let is_whole = self.names.is_empty() && self.only.is_empty() && !self.ordinary_user;
        let default = if is_whole { "docs" } else { "target/zoo" };
        self.into.as_deref().unwrap_or(Path::new(default))
    }
}

/// What a page is about.
struct Topic {
    file: &'static str,
    title: &'static str,
    lead: &'static str,
    /// What makes it.
    chore: &'static str,
    names: &'static [&'static str],
    only: &'static [&'static str],
}

const HOW_SERVERS_STOP: Topic = Topic {
    file: "zoo",
    title: "How servers stop",
    lead: "The checks of `sundown verify` on servers of many frameworks, each written as its own documentation\n\
           recommends ([peers](../peers/README.md)).",
    chore: "cargo xtask zoo",
    names: &[],
    only: &[],
};

const UNDER_THE_GUARD: Topic = Topic {
    file: "guarded",
    title: "How servers stop under `sundown run`",
    lead: "Checks of `sundown verify` on servers that do nothing at a stop ([peers](../peers/README.md)): each by\n\
           itself, and unchanged under `sundown run`.",
    chore: "cargo xtask zoo --guarded",
    names: &["flask", "express-default", "gin-default", "beego-default"],
    only: &["listener", "signal", "proc", "budget"],
};

/// What came of one subject.
struct Visit {
    subject: Subject,
    /// How it is started, as a reader would type it.
    command: String,
    /// What it is and in which version, or what this machine lacks for it.
    outcome: Result<Seen, String>,
}

struct Seen {
    version: String,
    judged: Judged,
}

/// Everything that the pages tell.
struct Zoo {
    topic: &'static Topic,
    machine: String,
    runs: usize,
    checks: Vec<&'static Check>,
    visits: Vec<Visit>,
}

/// How a cell of the table reads.
#[derive(Clone, Copy)]
struct Mark {
    sign: &'static str,
    class: &'static str,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let folder = Folder::new("zoo")?;
    let topic = arguments.topic();
    let names = or_usual(&arguments.names, topic.names);
    let only = or_usual(&arguments.only, topic.only);
    let mut subjects = subject::chosen(workspace, folder.path(), &names)?;
    if arguments.guarded {
        build_command(workspace)?;
        let rights = Rights {
            ordinary_user: arguments.ordinary_user,
            ..Rights::default()
        };
        subjects = subject::beside_guarded(subjects, &rights.sundown(workspace));
    }
    let checks: Vec<&'static Check> = checks::all()
        .filter(|check| is_wanted(check, &only))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut visits = Vec::new();
    for subject in subjects {
        let outcome = match subject.missing() {
            Some(missing) => Err(missing),
            None => Ok(Seen {
                version: subject.prepare(workspace)?,
                judged: runtime.block_on(judge(&subject, &checks, arguments.runs))?,
            }),
        };
        let command = subject.command(&workspace.root, folder.path());
        visits.push(Visit {
            subject,
            command,
            outcome,
        });
    }
    let zoo = Zoo {
        topic,
        machine: machine(),
        runs: arguments.runs,
        checks,
        visits,
    };
    let into = workspace.root.join(arguments.into());
    fs::create_dir_all(&into)?;
    let file = into.join(topic.file);
    write(&file.with_extension("md"), &markdown::page(&zoo))?;
    write(&file.with_extension("html"), &html::page(&zoo))?;
    print!("{}", markdown::table(&zoo));
    Ok(match zoo.ours_broken() {
        false => Verdict::Holds,
        true => Verdict::Broken,
    })
}

fn or_usual(given: &[String], usual: &[&str]) -> Vec<String> {
    match given.is_empty() {
        true => usual.iter().map(|name| (*name).to_owned()).collect(),
        false => given.to_vec(),
    }
}

async fn judge(
    subject: &Subject,
    checks: &[&'static Check],
    runs: usize,
) -> anyhow::Result<Judged> {
    let suite = Suite::new(subject.service.clone(), checks.to_vec(), runs);
    let name = &subject.name;
    let judged = suite.run(|told| {
        if let Told::Stop { number, checks } = told {
            let first = checks[0].id;
            progress::line(&format!("{name}: stop {number}, {first}"));
        }
    });
    let judged = judged.await.with_context(|| name.to_owned())?;
    progress::clear();
    Ok(judged)
}

fn is_wanted(check: &Check, only: &[String]) -> bool {
    let section = check.id.split('/').next().unwrap_or_default();
    only.is_empty()
        || only
            .iter()
            .any(|wanted| wanted == check.id || wanted == section)
}

fn write(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// What the figures were taken on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel
        .trim()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!("{model}, {cores} cores, Linux {kernel}")
}

impl Zoo {
    fn seen(&self) -> impl Iterator<Item = (&Subject, &Seen)> {
        self.visits
            .iter()
            .filter_map(|visit| Some((&visit.subject, visit.outcome.as_ref().ok()?)))
    }

    fn ours_broken(&self) -> bool {
        self.seen()
            .filter(|(subject, _)| subject.is_ours())
            .flat_map(|(_, seen)| &seen.judged.judgements)
            .any(|judgement| {
                judgement.check.level != Level::Info
                    && !matches!(judgement.verdict, Found::Pass | Found::Skipped)
            })
    }
}

fn mark(verdict: Found) -> Mark {
    let (sign, class) = match verdict {
        Found::Pass => ("✓", "pass"),
        Found::Fail => ("✗", "fail"),
        Found::Flaky => ("≈", "flaky"),
        Found::Inconclusive => ("?", "unclear"),
        Found::Skipped => ("", "skipped"),
    };
    Mark { sign, class }
}

/// How to read the marks.
const LEGEND: &str = "✓ kept, ✗ broken, ≈ broken in some runs, ? too little seen; empty: the server \
                      has nothing that the check needs. INFO is told and not judged.";
